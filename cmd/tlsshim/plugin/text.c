#define _POSIX_C_SOURCE 200809L
#include "text.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_BYTES = 128 /* enough for nearly every request */ };

/* The length of the UTF-8 character at p, or 0 if the bytes up to end do not begin with one. */
static size_t character(const unsigned char *p, const unsigned char *end)
{
	unsigned char low = 0x80, high = 0xBF; /* bounds of the second byte, RFC 3629 section 4 */
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xC2 && p[0] <= 0xDF)
		len = 2;
	else if (p[0] >= 0xE0 && p[0] <= 0xEF)
		len = 3;
	else if (p[0] >= 0xF0 && p[0] <= 0xF4)
		len = 4;
	else
		return 0;
	if ((size_t)(end - p) < len)
		return 0;

	switch (p[0]) {
	case 0xE0: low = 0xA0; break;  /* no overlong form */
	case 0xED: high = 0x9F; break; /* no surrogate */
	case 0xF0: low = 0x90; break;  /* no overlong form */
	case 0xF4: high = 0x8F; break; /* nothing above U+10FFFF */
	}
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	return len;
}

bool utf8_valid(const char *at, size_t len)
{
	const unsigned char *p = (const unsigned char *)at, *end = p + len;

	while (p < end) {
		size_t n = character(p, end);
		if (n == 0)
			return false;
		p += n;
	}
	return true;
}

void text_vadd(char *out, size_t cap, const char *format, va_list args)
{
	size_t have = strlen(out), cut;
	int n = vsnprintf(out + have, cap - have, format, args);

	if (n < 0) {
		out[have] = '\0';
		return;
	}
	if ((size_t)n < cap - have)
		return;
	for (cut = cap - 1; cut > have && ((unsigned char)out[cut - 1] & 0xC0) == 0x80;)
		cut--;
	if (cut > have && !utf8_valid(out + cut - 1, cap - cut))
		out[cut - 1] = '\0';
}

void text_add(char *out, size_t cap, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	text_vadd(out, cap, format, args);
	va_end(args);
}

int64_t text_give(char *out, size_t cap, const char *text)
{
	size_t len = strlen(text);

	if (out && cap > 0) {
		size_t n = len < cap ? len : cap - 1;
		memcpy(out, text, n);
		out[n] = '\0';
	}
	return (int64_t)len;
}

static void vput(struct text *out, const char *format, va_list args)
{
	va_list again;
	int n;

	va_copy(again, args);
	n = vsnprintf(NULL, 0, format, again);
	va_end(again);
	if (n >= 0 && !out->failed && out->cap - out->len <= (size_t)n) {
		size_t cap = (out->len + (size_t)n + FIRST_BYTES) * 2;
		char *grown = realloc(out->bytes, cap);

		out->failed = !grown;
		if (grown) {
			out->bytes = grown;
			out->cap = cap;
		}
	}
	if (n < 0 || out->failed)
		return;
	vsnprintf(out->bytes + out->len, (size_t)n + 1, format, args);
	out->len += (size_t)n;
}

void text_put(struct text *out, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vput(out, format, args);
	va_end(args);
}

char *text_make(const char *format, ...)
{
	struct text out = { 0 };
	va_list args;

	va_start(args, format);
	vput(&out, format, args);
	va_end(args);
	return out.bytes;
}

char *absolute_path(const char *path)
{
	char *cwd, *joined = NULL;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return NULL;
	if (cwd[0] != '/')
		errno = ENOENT; /* for example "(unreachable)/...", which is no path: getcwd(3) */
	else
		joined = text_make("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
	free(cwd);
	return joined;
}

const char *errno_text(int error)
{
	/* strerror is not thread-safe, strerror_r differs between libraries, and both translate the
	 * text into the locale's language. The C locale is a constant of libc, so there is nothing
	 * to free. */
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);

	return c == (locale_t)0 ? "unknown error" : strerror_l(error, c);
}
