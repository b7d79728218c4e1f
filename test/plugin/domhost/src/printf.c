/*
 * printf.c - the print plugin's printf
 *
 * The conversions are C's: flags, width, precision, and d i u x X o c s f F e E g G %.
 * d i u x X o take an i32; with l or ll before the letter they take an i64, too.
 * c takes an i32, s a string, and f F e E g G take a double. Everything is
 * checked before the first byte is printed: a wrong call prints nothing.
 */
#include "native.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH 4096 /* the largest width, and the largest precision */

/* One conversion: %-08.3ld */
typedef struct {
	char flags[8];
	int width, precision; /* -1: none */
	bool longer;          /* l or ll */
	char letter;
} Conversion;

static bool put(const NativeCall *c, const char *data, size_t len, Value *text)
{
	Value more = value_bytes(T_STRING, data, len);
	bool ok = value_append(text, &more, c->f, c->line);
	value_free(&more);
	return ok;
}

static bool number(const NativeCall *c, const char **p, int *out)
{
	for (*out = 0; **p >= '0' && **p <= '9'; ++*p) {
		*out = *out * 10 + (**p - '0');
		if (*out > MAX_WIDTH)
			return fail(c->f, c->line, "printf: a width or precision is more than %d",
			            MAX_WIDTH);
	}
	return true;
}

/* Reads the conversion behind the %. */
static bool read_conversion(const NativeCall *c, const char **p, Conversion *v)
{
	size_t flags = 0;
	*v = (Conversion){.width = -1, .precision = -1};
	while (**p != '\0' && strchr("-+ #0", **p) != NULL) {
		if (strchr(v->flags, **p) == NULL)
			v->flags[flags++] = **p;
		++*p;
	}
	if (**p >= '1' && **p <= '9' && !number(c, p, &v->width))
		return false;
	if (**p == '.') {
		++*p;
		if (!number(c, p, &v->precision))
			return false;
	}
	for (int i = 0; i < 2 && **p == 'l'; i++, ++*p)
		v->longer = true;
	v->letter = **p;
	if (v->letter == '\0')
		return fail(c->f, c->line, "printf: the format ends in the middle of a %%");
	++*p;
	if (strchr("diuxXocsfFeEgG", v->letter) == NULL || (v->longer && strchr("cs", v->letter)))
		return fail(c->f, c->line, "printf: unknown conversion %%%s%c",
			v->longer ? "l" : "",
		            v->letter);
	return true;
}

static bool mismatch(const NativeCall *c, const Conversion *v, size_t i, const char *wants)
{
	const Value *a = &c->args[i];
	const char *hint = "";
	if (a->type == T_I64 && strchr("diuxXoc", v->letter) != NULL)
		hint = "; an i64 needs an l, as in %ld";
	else if (a->type == T_BLOB && v->letter == 's')
		hint = "; blob.ToText makes a string of it";
	return fail(c->f, c->line, "printf: %%%s%c takes %s, argument %zu is %s%s",
	            v->longer ? "l" : "", v->letter, wants, i + 1, type_phrase(a->type), hint);
}

/* Padding is done here: C's own %s would stop at a zero byte. */
static bool put_padded(const NativeCall *c, const Conversion *v, const char *data, size_t len,
                       Value *text)
{
	char blanks[MAX_WIDTH];
	size_t width = v->width > 0 ? (size_t)v->width : 0, pad = width > len ? width - len : 0;
	bool left = strchr(v->flags, '-') != NULL;

	memset(blanks, ' ', pad);
	return (left || put(c, blanks, pad, text)) && put(c, data, len, text) &&
	       (!left || put(c, blanks, pad, text));
}

static bool put_number(const NativeCall *c, const Conversion *v, const Value *a, Value *text)
{
	/* Enough: a double has at most 309 digits before the point, and MAX_WIDTH behind it. */
	char format[48], digits[3 * MAX_WIDTH];
	char width[16] = "", precision[16] = "";
	bool real = strchr("fFeEgG", v->letter) != NULL;
	int len;

	if (v->width >= 0)
		snprintf(width, sizeof width, "%d", v->width);
	if (v->precision >= 0)
		snprintf(precision, sizeof precision, ".%d", v->precision);
	snprintf(format, sizeof format, "%%%s%s%s%s%c", v->flags, width, precision,
	         real ? "" : "ll", v->letter);
	if (real)
		len = snprintf(digits, sizeof digits, format, a->u.d);
	else if (strchr("di", v->letter) != NULL)
		len = snprintf(digits, sizeof digits, format, (long long)a->u.i);
	else /* unsigned: an i32 shows its 32 bits */
		len = snprintf(digits, sizeof digits, format,
		               v->longer ? (unsigned long long)a->u.i :
		                           (unsigned long long)(uint32_t)a->u.i);
	if (len < 0 || (size_t)len >= sizeof digits)
		return fail(c->f, c->line, "printf: a number is too long to print");
	return put(c, digits, (size_t)len, text);
}

static bool put_argument(const NativeCall *c, const Conversion *v, size_t i, Value *text)
{
	if (i >= c->count)
		return fail(c->f, c->line,
			"printf: the format needs more than the %zu argument%s given",
		            c->count - 1, c->count == 2 ? "" : "s");
	const Value *a = &c->args[i];
	switch (v->letter) {
	case 's': {
		if (a->type != T_STRING)
			return mismatch(c, v, i, "a string");
		size_t len = a->u.b->len;
		if (v->precision >= 0 && (size_t)v->precision < len)
			len = (size_t)v->precision;
		return put_padded(c, v, a->u.b->data, len, text);
	}
	case 'c': {
		if (a->type != T_I32)
			return mismatch(c, v, i, "an i32");
		char byte = (char)a->u.i;
		return put_padded(c, v, &byte, 1, text);
	}
	case 'd':
	case 'i':
	case 'u':
	case 'x':
	case 'X':
	case 'o':
		if (a->type != T_I32 && !(a->type == T_I64 && v->longer))
			return mismatch(c, v, i, v->longer ? "an i64" : "an i32");
		return put_number(c, v, a, text);
	default:
		if (a->type != T_DOUBLE)
			return mismatch(c, v, i, "a double");
		return put_number(c, v, a, text);
	}
}

static bool format_all(const NativeCall *c, Value *text)
{
	const char *p = c->args[0].u.b->data, *end = p + c->args[0].u.b->len;
	size_t next = 1;

	while (p < end) {
		const char *percent = memchr(p, '%', (size_t)(end - p));
		const char *stop = percent != NULL ? percent : end;
		if (!put(c, p, (size_t)(stop - p), text))
			return false;
		p = stop;
		if (p == end)
			break;
		if (*++p == '%') {
			if (!put(c, p++, 1, text))
				return false;
			continue;
		}
		Conversion v;
		if (!read_conversion(c, &p, &v) || !put_argument(c, &v, next++, text))
			return false;
	}
	if (next < c->count)
		return fail(c->f, c->line, "printf: %zu arguments, but the format uses %zu",
		            c->count - 1, next - 1);
	return true;
}

bool builtin_printf(const NativeCall *c, Value *result)
{
	Value text = value_zero(T_STRING);
	bool ok = format_all(c, &text);
	size_t len = text.u.b->len; /* at most MAX_BYTES, which an i32 can hold */

	if (ok && fwrite(text.u.b->data, 1, len, stdout) != len)
		ok = fail(c->f, c->line, "printf: standard output: %s", strerror(errno));
	value_free(&text);
	*result = value_int(T_I32, (int64_t)len);
	return ok;
}
