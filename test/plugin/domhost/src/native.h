/*
 * native.h - functions that are not the script's own
 *
 * The number and the types of the arguments are checked here against the
 * function's line in a table, before anything of it runs.
 */
#ifndef NATIVE_H
#define NATIVE_H

#include "value.h"

typedef struct {
	const struct Native *native;
	Value *args; /* of the types that the table says */
	size_t count;
	Failure *f;
	int line;
} NativeCall;

typedef enum {
	P_NONE,
	P_I32,    /* an integer that fits an int32_t */
	P_I64,    /* an integer */
	P_STRING, /* a string without zero bytes, as C needs it */
	P_TEXT,   /* any string */
	P_BLOB,
	P_OPTIONAL_I64, /* an integer that may be left out; only as the last one */
	P_REST          /* any more values, only as the last one */
} ParameterKind;

#define MAX_NATIVE_PARAMETERS 4

typedef struct Native {
	const char *name;   /* in scripts */
	const char *symbol; /* in the plugin; NULL: built in, or domhost's own */
	struct {
		const char *name;
		ParameterKind kind;
	} parameters[MAX_NATIVE_PARAMETERS];
	bool (*call)(const NativeCall *c, Value *result);
} Native;

/* printf, blob.FromText and blob.ToText; NULL if it is none of them. */
const Native *builtin_find(const char *name);

/* Is the number of arguments right? Asked before they are evaluated. */
bool native_check_count(const Native *n, size_t count, Failure *f, int line);
/* Checks the types of args, which the caller keeps, and calls. */
bool native_call(const Native *n, Value *args, size_t count, Failure *f, int line, Value *result);

/* printf's own file. */
bool builtin_printf(const NativeCall *c, Value *result);

#endif
