/*
 * interp.h - runs a Program
 *
 * The functions walk the tree of the program. After a failure each of them frees its values and
 * returns false or FLOW_FAIL, up to run_program.
 */
#ifndef INTERP_H
#define INTERP_H

#include "ast.h"

/* How many expressions, statements and calls may be inside of each other. 8 MiB of stack suffice
 * for this depth, also with the sanitizers, which need more stack. */
#define MAX_RUN_DEPTH 4000

typedef struct {
	Type type;       /* the declared type, to which v is converted */
	size_t declared; /* capacity of a string or blob; 0: none given */
	Value v;
} Variable;

typedef struct {
	const char *script; /* its path */
	const Program *program;
	Failure *f;
	Variable *frame; /* of the function that runs */
	Value result;    /* of the return statement that was just run */
	int depth;
} Interp;

typedef enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_RETURN, FLOW_FAIL } Flow;

/* Loads the plugins and runs main. Sets *status to the result of an i32 main, otherwise to 0. */
bool run_program(const char *script, const Program *program, int *status, Failure *f);

/* The functions below are only for the files of the interpreter. */

/* Adds a level to in->depth, or fails if there are MAX_RUN_DEPTH levels. On success the caller must
 * subtract the level. */
bool deeper(Interp *in, int line);
Flow run_statement(Interp *in, const Node *n);
/* Computes the value of an expression. On success the caller must free *out. */
bool eval(Interp *in, Node *n, Value *out);
bool eval_call(Interp *in, Node *n, Value *out);
bool eval_assign(Interp *in, const Node *n, Value *out);
bool eval_step(Interp *in, const Node *n, Value *out);

#endif
