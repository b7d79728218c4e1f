#include "json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 32 };

/* --- writing --- */

static bool is_plain(char c)
{
	return (unsigned char)c >= 0x20 && c != '"' && c != '\\';
}

bool json_put_string(struct text *out, const char *text)
{
	text_put(out, "\"");
	while (*text) {
		size_t plain = 0;

		while (is_plain(text[plain]))
			plain++;
		text_put(out, "%.*s", (int)plain, text);
		text += plain;
		if (*text)
			text_put(out, "\\u%04x", (unsigned)(unsigned char)*text++);
	}
	text_put(out, "\"");
	return true;
}

/* --- checking ---
 *
 * Each skip function returns the address after the value at p. If there is no such value, it
 * returns NULL. */

/* What skip_list looks for. In an object it is the value of a member, and text is the member's
 * name. In an array it is an element that is equal to text. */
struct search {
	const char *text;
	struct span found; /* the last match */
	int times;
};

static const char *skip_value(const char *p, const char *end, int depth);

static const char *skip_space(const char *p, const char *end)
{
	while (p && p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	return p;
}

static const char *skip_digits(const char *p, const char *end)
{
	const char *first = p;

	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p > first ? p : NULL;
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
	static const char digits[] = "0123456789abcdefABCDEF";
	int n = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		const char *d = memchr(digits, p[i], sizeof digits - 1);

		if (!d)
			return -1;
		n = n * 16 + (int)(d - digits) - (d - digits > 15 ? 6 : 0);
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

/* Skips an array or an object. s is the search in it, or NULL. */
static const char *skip_list(const char *p, const char *end, int depth, struct search *s)
{
	bool object = *p == '{'; /* its members have names */
	char last = object ? '}' : ']';

	if (depth == 0)
		return NULL;
	p = skip_space(p + 1, end);
	if (p < end && *p == last)
		return p + 1;
	for (;;) {
		struct span name = { p, 0 }, value;

		if (object) {
			p = skip_string(p, end);
			name = (struct span){ name.at + 1, p ? (size_t)(p - name.at) - 2 : 0 };
			p = skip_space(p, end);
			if (!p || p == end || *p++ != ':')
				return NULL;
			p = skip_space(p, end);
		}
		value.at = p;
		p = skip_value(p, end, depth - 1);
		if (!p)
			return NULL;
		value.len = (size_t)(p - value.at);
		if (s && json_is(object ? name : value, s->text)) {
			s->found = value;
			s->times++;
		}
		p = skip_space(p, end);
		if (p == end)
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
		return skip_list(p, end, depth, NULL);
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

/* Searches an object or an array, as struct search says. If list does not begin with the parameter
 * bracket, nothing is searched, and times is 0. */
static struct search look(struct span list, char bracket, const char *text)
{
	struct search s = { .text = text };
	const char *p, *end;

	if (!list.at)
		return s;
	end = list.at + list.len;
	p = skip_space(list.at, end);
	if (p < end && *p == bracket)
		skip_list(p, end, DEEPEST, &s);
	return s;
}

struct span json_member(struct span object, const char *name)
{
	struct search s = look(object, '{', name);

	return s.times == 1 ? s.found : (struct span){ NULL, 0 };
}

bool json_array_has(struct span array, const char *literal)
{
	return look(array, '[', literal).times > 0;
}

bool json_is(struct span value, const char *literal)
{
	return value.at && value.len == strlen(literal) &&
	       memcmp(value.at, literal, value.len) == 0;
}

bool json_int(struct span value, int64_t *n)
{
	char digits[24], *end; /* longer numbers do not fit into an int64_t */
	int before = errno;
	bool fits;

	if (!value.at || value.len == 0 || value.len >= sizeof digits)
		return false;
	memcpy(digits, value.at, value.len);
	digits[value.len] = '\0';
	errno = 0;
	*n = strtoll(digits, &end, 10);
	fits = errno == 0 && *end == '\0';
	errno = before;
	return fits;
}

bool json_is_string(struct span value)
{
	return value.at && value.len >= 2 && *value.at == '"';
}

static char *put_utf8(char *to, unsigned c)
{
	int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3; /* bytes behind the first */

	*to++ = (char)(more ? ((0xF0U << (3 - more)) & 0xFF) | c >> 6 * more : c);
	while (more-- > 0)
		*to++ = (char)(0x80 | (c >> 6 * more & 0x3F));
	return to;
}

/* Returns the character of a \uXXXX whose digits are at *p. It moves *p behind the digits, or
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
	static const char escapes[] = "bfnrt", stands_for[] = "\b\f\n\r\t";
	const char *p = string.at + 1, *end = string.at + string.len - 1, *escape;
	char *text = malloc(string.len), *to = text; /* the text is never longer than the string */

	while (text && p < end) {
		if (*p != '\\') {
			*to++ = *p++;
			continue;
		}
		p += 2;
		escape = strchr(escapes, p[-1]);
		if (p[-1] == 'u')
			to = put_utf8(to, unescape(&p, end));
		else
			*to++ = escape ? stands_for[escape - escapes] : p[-1];
	}
	if (text)
		*to = '\0';
	return text;
}
