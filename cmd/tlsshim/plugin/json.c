#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

enum { DEEPEST = 32 };

/* --- writing --- */

enum { FIRST_BYTES = 128 /* holds nearly each request */ };

static void put(struct json_out *out, const char *at, size_t len)
{
	if (out->failed)
		return;
	if (out->cap - out->len <= len) {
		size_t cap = (out->len + len + FIRST_BYTES) * 2;
		char *grown = realloc(out->at, cap);
		if (!grown) {
			out->failed = true;
			return;
		}
		out->at = grown;
		out->cap = cap;
	}
	memcpy(out->at + out->len, at, len);
	out->len += len;
	out->at[out->len] = '\0';
}

void json_put(struct json_out *out, const char *text)
{
	put(out, text, strlen(text));
}

void json_put_int(struct json_out *out, int64_t n)
{
	char digits[24], *first = digits + sizeof digits;
	uint64_t left = n < 0 ? -(uint64_t)n : (uint64_t)n;

	do
		*--first = (char)('0' + left % 10);
	while (left /= 10);
	if (n < 0)
		*--first = '-';
	put(out, first, (size_t)(digits + sizeof digits - first));
}

void json_put_string(struct json_out *out, const char *text)
{
	char escape[8];

	json_put(out, "\"");
	while (*text) {
		size_t plain = 0;
		while ((unsigned char)text[plain] >= 0x20 && text[plain] != '"' && text[plain] != '\\')
			plain++;
		put(out, text, plain);
		text += plain;
		if (*text) {
			snprintf(escape, sizeof escape, "\\u%04x", (unsigned)(unsigned char)*text++);
			json_put(out, escape);
		}
	}
	json_put(out, "\"");
}

/* --- checking: skip_x(p, end) returns what follows the x at p, or NULL if there is none --- */

static const char *skip_value(const char *p, const char *end, int depth);

static const char *skip_space(const char *p, const char *end)
{
	while (p && p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	return p;
}

static bool is_digit(const char *p, const char *end)
{
	return p < end && *p >= '0' && *p <= '9';
}

static const char *skip_digits(const char *p, const char *end)
{
	if (!is_digit(p, end))
		return NULL;
	while (is_digit(p, end))
		p++;
	return p;
}

static const char *skip_number(const char *p, const char *end)
{
	if (p < end && *p == '-')
		p++;
	p = p < end && *p == '0' ? p + 1 : skip_digits(p, end);
	if (p && p < end && *p == '.')
		p = skip_digits(p + 1, end);
	if (p && p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = skip_digits(p, end);
	}
	return p;
}

/* The value of four hexadecimal digits, or -1. */
static int hex4(const char *p, const char *end)
{
	int n = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;
		if (digit < 0)
			return -1;
		n = n * 16 + digit;
	}
	return n;
}

static const char *skip_string(const char *p, const char *end)
{
	if (!p || p == end || *p != '"')
		return NULL;
	for (p++; p < end && *p != '"'; p++) {
		if ((unsigned char)*p < 0x20)
			return NULL;
		if (*p != '\\')
			continue;
		if (++p == end || !*p || !strchr("\"\\/bfnrtu", *p))
			return NULL;
		if (*p == 'u') {
			if (hex4(p + 1, end) < 0)
				return NULL;
			p += 4;
		}
	}
	return p < end ? p + 1 : NULL;
}

static const char *skip_literal(const char *p, const char *end, const char *literal)
{
	size_t len = strlen(literal);

	return (size_t)(end - p) >= len && memcmp(p, literal, len) == 0 ? p + len : NULL;
}

/* An array or an object. */
static const char *skip_list(const char *p, const char *end, int depth)
{
	bool object = *p == '{';
	char last = object ? '}' : ']';

	if (depth == 0)
		return NULL;
	p = skip_space(p + 1, end);
	if (p < end && *p == last)
		return p + 1;
	for (;;) {
		if (object) {
			p = skip_space(skip_string(p, end), end);
			if (!p || p == end || *p++ != ':')
				return NULL;
			p = skip_space(p, end);
		}
		p = skip_space(skip_value(p, end, depth - 1), end);
		if (!p || p == end)
			return NULL;
		if (*p == last)
			return p + 1;
		if (*p != ',')
			return NULL;
		p = skip_space(p + 1, end);
	}
}

static const char *skip_value(const char *p, const char *end, int depth)
{
	if (p == end)
		return NULL;
	switch (*p) {
	case '{':
	case '[':
		return skip_list(p, end, depth);
	case '"':
		return skip_string(p, end);
	case 't':
		return skip_literal(p, end, "true");
	case 'f':
		return skip_literal(p, end, "false");
	case 'n':
		return skip_literal(p, end, "null");
	default:
		return skip_number(p, end);
	}
}

bool json_valid(struct span line)
{
	const char *end = line.at + line.len;
	const char *rest = skip_value(skip_space(line.at, end), end, DEEPEST);

	return rest && skip_space(rest, end) == end && utf8_valid(line.at, line.len);
}

/* --- looking up --- */

struct span json_member(struct span object, const char *name)
{
	const struct span none = { NULL, 0 };
	const char *end, *p;
	size_t name_len = strlen(name);
	struct span found = none;

	if (!object.at)
		return none;
	end = object.at + object.len;
	p = skip_space(object.at, end);
	if (*p != '{')
		return none;
	p = skip_space(p + 1, end);
	while (*p != '}') {
		const char *key = p + 1, *key_end = skip_string(p, end) - 1;
		const char *value = skip_space(skip_space(key_end + 1, end) + 1, end); /* behind the colon */

		p = skip_value(value, end, DEEPEST);
		if ((size_t)(key_end - key) == name_len && memcmp(key, name, name_len) == 0) {
			if (found.at)
				return none;
			found = (struct span){ value, (size_t)(p - value) };
		}
		p = skip_space(p, end);
		if (*p == ',')
			p = skip_space(p + 1, end);
	}
	return found;
}

bool json_array_has(struct span array, const char *literal)
{
	const char *end, *p, *value;

	if (!array.at || *array.at != '[')
		return false;
	end = array.at + array.len;
	p = skip_space(array.at + 1, end);
	while (*p != ']') {
		value = p;
		p = skip_value(value, end, DEEPEST);
		if (!p)
			return false;
		if (json_is((struct span){ value, (size_t)(p - value) }, literal))
			return true;
		p = skip_space(p, end);
		if (*p == ',')
			p = skip_space(p + 1, end);
	}
	return false;
}

bool json_is(struct span value, const char *literal)
{
	return value.at && value.len == strlen(literal) && memcmp(value.at, literal, value.len) == 0;
}

bool json_int(struct span value, int64_t *n)
{
	bool negative;

	if (!value.at || value.len == 0)
		return false;
	negative = *value.at == '-';
	*n = 0;
	for (size_t i = negative; i < value.len; i++) {
		int digit = value.at[i] - '0';
		if (digit < 0 || digit > 9 || *n < (INT64_MIN + digit) / 10)
			return false;
		*n = *n * 10 - digit; /* downwards, because INT64_MIN has no positive twin */
	}
	if (negative)
		return true;
	if (*n == INT64_MIN)
		return false;
	*n = -*n;
	return true;
}

bool json_is_string(struct span value)
{
	return value.at && value.len >= 2 && *value.at == '"';
}

static char *put_utf8(char *to, unsigned c)
{
	if (c < 0x80) {
		*to++ = (char)c;
	} else if (c < 0x800) {
		*to++ = (char)(0xC0 | c >> 6);
		*to++ = (char)(0x80 | (c & 0x3F));
	} else if (c < 0x10000) {
		*to++ = (char)(0xE0 | c >> 12);
		*to++ = (char)(0x80 | (c >> 6 & 0x3F));
		*to++ = (char)(0x80 | (c & 0x3F));
	} else {
		*to++ = (char)(0xF0 | c >> 18);
		*to++ = (char)(0x80 | (c >> 12 & 0x3F));
		*to++ = (char)(0x80 | (c >> 6 & 0x3F));
		*to++ = (char)(0x80 | (c & 0x3F));
	}
	return to;
}

/* The character of the \uXXXX whose digits are at *p; moves *p behind it, and
 * behind the second half of a pair of surrogates. */
static unsigned unescape(const char **p, const char *end)
{
	unsigned c = (unsigned)hex4(*p, end);
	int low;

	*p += 4;
	if (c >= 0xD800 && c <= 0xDBFF && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
		low = hex4(*p + 2, end);
		if (low >= 0xDC00 && low <= 0xDFFF) {
			*p += 6;
			return 0x10000 + (c - 0xD800) * 0x400 + ((unsigned)low - 0xDC00);
		}
	}
	return c == 0 || (c >= 0xD800 && c <= 0xDFFF) ? 0xFFFD : c;
}

char *json_text(struct span string)
{
	const char *p = string.at + 1, *end = string.at + string.len - 1;
	char *text = malloc(string.len), *to = text; /* no escape is shorter than what it stands for */

	if (!text)
		return NULL;
	while (p < end) {
		if (*p != '\\') {
			*to++ = *p++;
			continue;
		}
		p += 2;
		switch (p[-1]) {
		case 'b': *to++ = '\b'; break;
		case 'f': *to++ = '\f'; break;
		case 'n': *to++ = '\n'; break;
		case 'r': *to++ = '\r'; break;
		case 't': *to++ = '\t'; break;
		case 'u': to = put_utf8(to, unescape(&p, end)); break;
		default: *to++ = p[-1];
		}
	}
	*to = '\0';
	return text;
}
