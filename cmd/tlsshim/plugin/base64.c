#include "base64.h"

#include <stdlib.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_text(const void *data, size_t len)
{
	const unsigned char *in = data;
	char *text = malloc((len + 2) / 3 * 4 + 1), *out = text;

	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		unsigned bits = (unsigned)in[i] << 16;

		if (n > 1)
			bits |= (unsigned)in[i + 1] << 8;
		if (n > 2)
			bits |= in[i + 2];
		for (size_t d = 0; d < 4; d++)
			*out++ = d <= n ? digits[bits >> (18 - 6 * d) & 63] : '=';
	}
	*out = '\0';
	return text;
}

/* The value of a digit, or -1. */
static int value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int64_t base64_bytes(const char *text, void *to, size_t cap)
{
	size_t len = strlen(text), padding = 0, done = 0;
	unsigned char *out = to;

	if (len % 4 != 0)
		return -1;
	while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
		padding++;
	if (len / 4 * 3 - padding > cap)
		return -1;
	for (size_t i = 0; i < len; i += 4) {
		size_t n = i + 4 == len ? 4 - padding : 4; /* digits in this group */
		unsigned bits = 0;

		for (size_t d = 0; d < 4; d++) {
			int v = d < n ? value(text[i + d]) : 0;

			if (v < 0)
				return -1;
			bits = bits << 6 | (unsigned)v;
		}
		if (n < 4 && bits & (n == 2 ? 0xffff : 0xff))
			return -1; /* bits of no byte must be 0 */
		for (size_t b = 0; b + 1 < n; b++)
			out[done++] = (unsigned char)(bits >> (16 - 8 * b));
	}
	return (int64_t)done;
}
