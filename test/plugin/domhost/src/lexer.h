/*
 * lexer.h - text to tokens; comments and #define are gone after it
 *
 * A string literal may contain a raw line break, which stays in it as it is.
 * #define NAME text replaces NAME by the text, wherever it stands as a word
 * later in the script. A definition from the command line goes before one of the script.
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
	const char *text; /* TOK_WORD and TOK_VAR: the name, a variable's without $ */
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

/* True if text is a name of letters, digits and _, not starting with a digit. */
bool is_name(const char *text, size_t len);

#endif
