/*
 * parser.h - turns the tokens of a script into a Program
 *
 * A script has either a function main, or statements outside of functions. In both cases it
 * may have other functions, and plugin directives.
 */
#ifndef PARSER_H
#define PARSER_H

#include "ast.h"
#include "lexer.h"

/* The largest depth of a syntax tree. It also bounds each recursion along a tree. */
#define MAX_TREE_DEPTH 400

/* A variable that is visible at the parser's position in the script. */
typedef struct Local {
	struct Local *outer;
	const char *name;
	int slot;
	int block; /* the nesting depth of the block that declares it */
} Local;

/* The parser's position: the function, the visible variables, the depth of blocks and loops. */
typedef struct {
	Function *function;
	Local *locals;
	int block, loop;
} Place;

typedef struct {
	Arena *arena;
	Failure *f;
	const Token *first, *t; /* the script's first token, and the next one to parse */
	Place place;
	int depth; /* of the parser's recursion; see enter */
	Program *program;
} Parser;

bool parse(Arena *arena, const Token *tokens, Program *program, Failure *f);

/* The rest is for the parser's own files. After a failure, these functions return NULL or false. */
Node *parse_expression(Parser *p);
/* Parses the statements of a block, and the } at its end. */
Node *parse_block(Parser *p);
/* Appends one statement, or the variables of a declaration, to the block. */
bool parse_statement_into(Parser *p, Node *block);
Node *new_node(Parser *p, NodeKind kind, int line);
/* Sets the children and the depth of n, and returns n. NULL stands for a child that n lacks. */
Node *with_children(Parser *p, Node *n, Node *a, Node *b, Node *c, Node *d);
/* Appends child to the list of n. If child is NULL, returns false: whoever has parsed the child has
 * recorded the failure. */
bool add_child(Parser *p, Node *n, Node *child);
/* Adds 1 to p->depth, or fails if the depth is too large. On success the caller must subtract 1. */
bool enter(Parser *p);
bool is_op(const Parser *p, int op);
bool is_word(const Parser *p, const char *word);
bool accept_word(Parser *p, const char *word);
bool accept_op(Parser *p, int op);
/* The failure's text is "expected OP after PRECEDING, got ...". */
bool expect_op(Parser *p, int op, const char *preceding);
bool parse_type(const Parser *p, Type *type);
/* Describes the next token, for messages. */
const char *describe(const Parser *p);
/* Declares a variable in the current block, and stores the number of its slot. */
bool declare(Parser *p, const char *name, int line, int *slot);
Local *find_local(const Parser *p, const char *name);

#endif
