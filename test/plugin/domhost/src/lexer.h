/*
 * lexer.h - makes tokens of a script's text; drops comments, and replaces #define names
 *
 * A string literal may contain a line break, which becomes part of the string. #define NAME text
 * replaces each later word NAME by the text. If the command line and the script define the same
 * name, the lexer uses the definition of the command line.
 */
#ifndef LEXER_H
#define LEXER_H

#include "value.h"

/* The code of an operator: its one or two characters. */
#define OP2(first, second) ((first) | (second) << 8)

typedef enum { TOK_END, TOK_WORD, TOK_VAR, TOK_NUMBER, TOK_STRING, TOK_OP } TokenKind;

typedef struct {
	TokenKind kind;
	int line;
	int op;           /* TOK_OP: the code */
	const char *text; /* TOK_WORD: the word; TOK_VAR: the variable's name, without $ */
	Value value;      /* TOK_NUMBER, TOK_STRING */
} Token;

typedef struct Define {
	struct Define *next;
	const char *name, *text;
	bool busy; /* is being expanded right now */
} Define;

typedef struct {
	Token *items; /* the last one is TOK_END; freed by the caller */
	size_t count, room;
} Tokens;

/* Reads the whole script into tokens. Names and strings are in the arena.
 * fixed are the definitions of the command line. */
bool lex(Arena *arena, const char *source, size_t len, Define *fixed, Tokens *tokens, Failure *f);

/* Says whether text consists of letters, digits and _, and does not begin with a digit. */
bool is_name(const char *text, size_t len);

#endif
