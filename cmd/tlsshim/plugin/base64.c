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

int64_t base64_bytes(const char *text, void *buf, size_t cap)
{
	size_t n = strcspn(text, "="), padding = strlen(text + n), done = 0;
	unsigned char *out = buf;
	unsigned bits = 0;

	if ((n + padding) % 4 != 0 || padding > 2 || strspn(text + n, "=") != padding)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const char *digit = memchr(digits, text[i], sizeof digits - 1);

		if (!digit)
			return -1;
		bits = bits << 6 | (unsigned)(digit - digits);
		if (i % 4 == 0)
			continue;
		if (done == cap)
			return -1;
		out[done++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
	}
	if (bits & (padding == 2 ? 15 : padding == 1 ? 3 : 0))
		return -1; /* the unused bits of the last digit must be 0 */
	return (int64_t)done;
}
