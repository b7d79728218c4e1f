/*
 * ast.h - the tree that the parser makes and the interpreter walks
 *
 * The whole tree is in the script's arena (util.h): memory that is freed all at once. The parser
 * gives each variable a slot, which is its place in the frame of its function.
 */
#ifndef AST_H
#define AST_H

#include "value.h"

typedef struct Function Function;
typedef struct Node Node;

typedef enum {
	/* expressions */
	N_LITERAL, /* value */
	N_VAR,     /* slot */
	N_INDEX,   /* a[b] */
	N_LENGTH,  /* a.Length */
	N_CALL,    /* name(list) */
	N_NOT,     /* !a */
	N_NEGATE,  /* -a */
	N_BINARY,  /* a op b */
	N_AND,     /* a && b */
	N_OR,      /* a || b */
	N_ASSIGN,  /* a op b; op is '=', ':=' or, for +=, '+' */
	N_STEP,    /* ++a --a; op is '+' or '-' */
	N_STEP_AFTER, /* a++ a-- */
	/* statements */
	N_BLOCK,    /* list */
	N_DECLARE,  /* type, slot; a: capacity or NULL, b: initial value or NULL */
	N_IF,       /* a: condition, b: then, c: else or NULL */
	/* a: block that runs once before the loop, b: condition, c: step, d: body;
	 * a, b and c may be NULL */
	N_LOOP,
	N_BREAK,
	N_CONTINUE,
	N_RETURN,    /* a: the result, or NULL */
	N_EXPRESSION /* a: evaluated, and its value is dropped */
} NodeKind;

typedef struct NodeList {
	Node **items;
	size_t count, room;
} NodeList;

struct Node {
	NodeKind kind;
	int line;
	int depth; /* levels of the tree from this node down, this node included */
	int op;
	int slot;
	Type type;
	Value value;
	const char *name; /* of the called function, or of the variable */
	/* N_CALL: the called function. When the call first runs, one of the two fields is set:
	 * `function` if the script defines the called function, or `native` if domhost or the
	 * plugin has it. */
	const Function *function;
	const struct Native *native;
	Node *a, *b, *c, *d;
	NodeList list;
};

typedef struct {
	const char *name;
	Type type;
} Parameter;

#define MAX_PARAMETERS 32

struct Function {
	Function *next;
	const char *name;
	int line;
	Type result;
	Parameter parameters[MAX_PARAMETERS]; /* they have the first slots */
	int parameter_count;
	int slot_count;
	Node *body;
};

typedef struct Directive {
	struct Directive *next;
	const char *path;
	int line;
} Directive;

typedef struct {
	Directive *directives; /* in the order of the script */
	Function *functions;   /* in no particular order */
	Function *main;        /* the script's main, or its bare statements */
} Program;

#endif
