/*
 * value.h - the values of a script and what operators do with them
 *
 * A copy of a string or blob shares the bytes, which count their references. If
 * a value with shared bytes is changed, it gets its own copy of the bytes first.
 * A Value owns one reference; value_free gives it back.
 */
#ifndef VALUE_H
#define VALUE_H

#include "util.h"

#include <stdint.h>

typedef enum { T_VOID, T_I32, T_I64, T_DOUBLE, T_STRING, T_BLOB } Type;

/* The largest string or blob, and the largest capacity: four times what one
 * tls.Read can give. */
#define MAX_BYTES ((size_t)64 << 20)

typedef struct {
	size_t refs, len, cap; /* cap: what fits without growing */
	char data[];           /* len bytes and a NUL */
} Bytes;

typedef struct {
	Type type;
	union {
		int64_t i; /* T_I32, T_I64 */
		double d;
		Bytes *b; /* T_STRING, T_BLOB */
	} u;
} Value;

const char *type_name(Type t);
/* "an i32", "a string": for messages. */
const char *type_phrase(Type t);
bool type_is_bytes(Type t);
bool type_is_number(Type t);

Value value_void(void);
Value value_int(Type t, int64_t i);
Value value_double(double d);
Value value_bytes(Type t, const char *data, size_t len);
/* len bytes for the caller to fill; shorten with value_truncate. */
Value value_buffer(Type t, size_t len);
/* A string whose bytes are in the arena. The arena owns one reference, and never gives it back. So
 * value_free does not free these bytes. */
Value value_literal(Arena *a, const char *data, size_t len);
/* The value of a variable that is declared without a value: 0, or no bytes. */
Value value_zero(Type t);
Value value_copy(Value v);
void value_free(Value *v);

/* Shortens v to at most len bytes. */
void value_truncate(Value *v, size_t len);
/* Sets byte i; the bytes between the old end and i become 0. i < MAX_BYTES. */
void value_set_byte(Value *v, size_t i, uint8_t byte);

/* a = a followed by b; both are strings or both blobs. */
bool value_append(Value *a, const Value *b, Failure *f, int line);

/* Converts v to the type of a variable, parameter or result. An integer must fit, and a
 * double loses its fraction. A string or blob converts to no other type. */
bool value_convert(Value *v, Type to, Failure *f, int line);

/* a = a op b. op is a token code of lexer.h: + - * / % < <= > >= == != */
bool value_binary(int op, Value *a, const Value *b, Failure *f, int line);
bool value_negate(Value *v, Failure *f, int line);
/* Stores whether v is true for if, while, !, && and ||: a number that is not 0. Fails if v is no
 * number. */
bool value_truth(const Value *v, bool *truth, Failure *f, int line);

#endif
