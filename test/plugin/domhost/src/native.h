/*
 * native.h - functions that a script can call, but has not defined
 *
 * Each function has an entry in a table (Native). The number and the types of the arguments are
 * checked against the entry before the function runs.
 */
#ifndef NATIVE_H
#define NATIVE_H

#include "value.h"

typedef struct {
	const struct Native *native;
	Value *args; /* native_call has checked their types */
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
	P_OPTIONAL_I64, /* an integer that may be omitted; only as the last parameter */
	P_REST          /* further values of any number and type; only as the last parameter */
} ParameterKind;

#define MAX_NATIVE_PARAMETERS 4

typedef struct Native {
	const char *name;   /* in scripts */
	const char *symbol; /* in the plugin; NULL: domhost has the function itself */
	struct {
		const char *name;
		ParameterKind kind;
	} parameters[MAX_NATIVE_PARAMETERS];
	bool (*call)(const NativeCall *c, Value *result);
} Native;

/* Finds printf, blob.FromText or blob.ToText. Returns NULL for another name. */
const Native *builtin_find(const char *name);

/* Fails if the number of arguments is wrong. Called before the arguments are evaluated. */
bool native_check_count(const Native *n, size_t count, Failure *f, int line);
/* Checks the types of args, and calls the function. The caller must still free args. */
bool native_call(const Native *n, Value *args, size_t count, Failure *f, int line, Value *result);

/* The function behind printf; see printf.c. */
bool builtin_printf(const NativeCall *c, Value *result);

#endif
