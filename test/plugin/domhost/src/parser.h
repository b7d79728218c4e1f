/*
 * parser.h - tokens to a Program
 *
 * A script is either bare statements or functions with a main; plugin
 * directives may stand in front of both.
 */
#ifndef PARSER_H
#define PARSER_H

#include "ast.h"
#include "lexer.h"

/* Trees are not deeper than this, and so neither is any walk along them. */
#define MAX_TREE_DEPTH 400

/* A variable that can be seen at this place of the script. */
typedef struct Local {
	struct Local *outer;
	const char *name;
	int slot;
	int block; /* how many blocks deep it was declared */
} Local;

/* What the parser knows of the function it is in. */
typedef struct {
	Function *function;
	Local *locals;
	int block, loop;
} Place;

typedef struct {
	Arena *arena;
	Failure *f;
	const Token *first, *t; /* all tokens; the next one */
	Place place;
	int depth; /* of the parser's own recursion */
	Program *program;
} Parser;

bool parse(Arena *arena, const Token *tokens, Program *program, Failure *f);

/* For the files of the parser among themselves. All return NULL or false after a failure. */
Node *parse_expression(Parser *p);
/* The statements up to }, which is taken too. */
Node *parse_block(Parser *p);
/* Appends one statement, or the variables of a declaration, to the block. */
bool parse_statement_into(Parser *p, Node *block);
Node *new_node(Parser *p, NodeKind kind, int line);
/* Sets the children of n and its depth. Those not needed are NULL. */
Node *with_children(Parser *p, Node *n, Node *a, Node *b, Node *c, Node *d);
/* Appends child to the list of n; a child that is NULL is a failure already recorded. */
bool add_child(Parser *p, Node *n, Node *child);
/* One level of the parser's recursion more; the caller counts depth down again. */
bool enter(Parser *p);
bool is_op(const Parser *p, int op);
bool is_word(const Parser *p, const char *word);
bool accept_word(Parser *p, const char *word);
bool accept_op(Parser *p, int op);
/* after names what the sign should have followed: "expected ; after ..." */
bool expect_op(Parser *p, int op, const char *after);
bool parse_type(const Parser *p, Type *type);
/* What the next token is, for messages. */
const char *describe(const Parser *p);
/* Gives the variable a slot, in the block and function of this place. */
bool declare(Parser *p, const char *name, int line, int *slot);
Local *find_local(const Parser *p, const char *name);

#endif
