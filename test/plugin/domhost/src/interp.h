/*
 * interp.h - runs a Program
 *
 * Expressions and statements are walked as they are; a failure unwinds the
 * walk, and every value on the way is freed.
 */
#ifndef INTERP_H
#define INTERP_H

#include "ast.h"

/* Expressions, statements and calls inside of each other. Small enough for a
 * stack of 8 MiB with the sanitizers' large frames. */
#define MAX_RUN_DEPTH 4000

typedef struct {
	Type type;       /* v's, always */
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

/* Loads the plugins and runs main. status is what main returned, else 0. */
bool run_program(const char *script, const Program *program, int *status, Failure *f);

/* For the files of the interpreter among themselves. */
bool deeper(Interp *in, int line);
Flow run_statement(Interp *in, const Node *n);
/* On success the caller frees out. */
bool eval(Interp *in, Node *n, Value *out);
bool eval_call(Interp *in, Node *n, Value *out);
bool eval_assign(Interp *in, const Node *n, Value *out);
bool eval_step(Interp *in, const Node *n, Value *out);

#endif
