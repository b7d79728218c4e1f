/* value.c - making, sharing, changing and converting values; see value.h */
#include "value.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *type_name(Type t)
{
	static const char *const names[] = {"void", "i32", "i64", "double", "string", "blob"};
	return names[t];
}

const char *type_phrase(Type t)
{
	static const char *const phrases[] = {"nothing",  "an i32",   "an i64",
	                                      "a double", "a string", "a blob"};
	return phrases[t];
}

bool type_is_bytes(Type t)
{
	return t == T_STRING || t == T_BLOB;
}

bool type_is_number(Type t)
{
	return t == T_I32 || t == T_I64 || t == T_DOUBLE;
}

Value value_void(void)
{
	return (Value){.type = T_VOID};
}

Value value_int(Type t, int64_t i)
{
	return (Value){.type = t, .u.i = i};
}

Value value_double(double d)
{
	return (Value){.type = T_DOUBLE, .u.d = d};
}

static void bytes_init(Bytes *b, const char *data, size_t len)
{
	b->refs = 1;
	b->len = b->cap = len;
	if (data != NULL && len > 0)
		memcpy(b->data, data, len);
	b->data[len] = '\0';
}

Value value_bytes(Type t, const char *data, size_t len)
{
	Bytes *b = must_alloc(sizeof *b + len + 1);
	bytes_init(b, data, len);
	return (Value){.type = t, .u.b = b};
}

Value value_buffer(Type t, size_t len)
{
	return value_bytes(t, NULL, len);
}

Value value_literal(Arena *a, const char *data, size_t len)
{
	Bytes *b = arena_alloc(a, sizeof *b + len + 1);
	bytes_init(b, data, len);
	return (Value){.type = T_STRING, .u.b = b};
}

Value value_zero(Type t)
{
	switch (t) {
	case T_STRING:
	case T_BLOB:
		return value_bytes(t, NULL, 0);
	case T_DOUBLE:
		return value_double(0);
	default:
		return value_int(t, 0);
	}
}

Value value_copy(Value v)
{
	if (type_is_bytes(v.type))
		v.u.b->refs++;
	return v;
}

void value_free(Value *v)
{
	if (type_is_bytes(v->type) && --v->u.b->refs == 0)
		free(v->u.b);
	*v = value_void();
}

/* Makes v the only owner of its bytes, with a capacity of at least cap bytes. The capacity
 * grows at least by half, so that appending in a loop is cheap. */
static void bytes_own(Value *v, size_t cap)
{
	Bytes *b = v->u.b;
	if (b->refs == 1 && cap <= b->cap)
		return;
	if (cap > b->cap && cap < b->cap + b->cap / 2)
		cap = b->cap + b->cap / 2;
	if (cap < b->len)
		cap = b->len;
	if (b->refs == 1) {
		b = must_realloc(b, sizeof *b + cap + 1);
	} else {
		Bytes *own = must_alloc(sizeof *own + cap + 1);
		bytes_init(own, b->data, b->len);
		b->refs--;
		b = own;
	}
	b->cap = cap;
	v->u.b = b;
}

void value_truncate(Value *v, size_t len)
{
	if (len >= v->u.b->len)
		return;
	if (v->u.b->refs > 1) {
		Value part = value_bytes(v->type, v->u.b->data, len);
		value_free(v);
		*v = part;
		return;
	}
	Bytes *b = must_realloc(v->u.b, sizeof *b + len + 1);
	b->len = b->cap = len;
	b->data[len] = '\0';
	v->u.b = b;
}

void value_set_byte(Value *v, size_t i, uint8_t byte)
{
	size_t len = v->u.b->len;
	size_t need = i < len ? len : i + 1;
	bytes_own(v, need);
	Bytes *b = v->u.b;
	if (need > len) {
		memset(b->data + len, 0, need - len + 1);
		b->len = need;
	}
	b->data[i] = (char)byte;
}

bool value_append(Value *a, const Value *b, Failure *f, int line)
{
	size_t len = a->u.b->len, more = b->u.b->len;
	if (more > MAX_BYTES - len)
		return fail(f, line, "a %s of %zu bytes is larger than %zu", type_name(a->type),
		            len + more, MAX_BYTES);
	Value tail = value_copy(*b); /* b may share its bytes with a */
	bytes_own(a, len + more);
	memcpy(a->u.b->data + len, tail.u.b->data, more);
	a->u.b->len = len + more;
	a->u.b->data[len + more] = '\0';
	value_free(&tail);
	return true;
}

static bool out_of_range(Failure *f, int line, Type to, const Value *v)
{
	if (v->type == T_DOUBLE)
		return fail(f, line, "%g does not fit an %s", v->u.d, type_name(to));
	return fail(f, line, "%" PRId64 " does not fit an %s", v->u.i, type_name(to));
}

bool value_convert(Value *v, Type to, Failure *f, int line)
{
	if (v->type == to)
		return true;
	if (!type_is_number(v->type) || !type_is_number(to))
		return fail(f, line, "expected %s, got %s", type_phrase(to), type_phrase(v->type));
	if (to == T_DOUBLE) {
		*v = value_double((double)v->u.i);
		return true;
	}
	if (v->type == T_DOUBLE) {
		/* -2^63 and 2^63 are exact as doubles; NaN fails both comparisons. */
		if (!(v->u.d >= -0x1p63 && v->u.d < 0x1p63))
			return out_of_range(f, line, to, v);
		*v = value_int(T_I64, (int64_t)v->u.d);
	}
	if (to == T_I32 && (v->u.i < INT32_MIN || v->u.i > INT32_MAX))
		return out_of_range(f, line, to, v);
	v->type = to;
	return true;
}

bool value_truth(const Value *v, bool *truth, Failure *f, int line)
{
	if (!type_is_number(v->type))
		return fail(f, line, "a condition must be a number, got %s", type_phrase(v->type));
	*truth = v->type == T_DOUBLE ? v->u.d != 0 : v->u.i != 0;
	return true;
}

bool value_negate(Value *v, Failure *f, int line)
{
	Value zero = value_int(T_I32, 0);
	if (!type_is_number(v->type))
		return fail(f, line, "- needs a number, got %s", type_phrase(v->type));
	if (v->type == T_DOUBLE) {
		v->u.d = -v->u.d; /* not 0 - d, because 0 - 0.0 is 0.0 and not -0.0 */
		return true;
	}
	if (!value_binary('-', &zero, v, f, line))
		return false;
	*v = zero;
	return true;
}
