/*
 * json.c - a libFuzzer target for json.h
 *
 * Each reader reads the input as a received line. The writer writes the input as a JSON
 * string, and the reader must read the same text from this string.
 */
#include "../../../../cmd/tlsshim/plugin/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../../../../cmd/tlsshim/plugin/text.h"

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void read_value(struct span v)
{
	int64_t n;

	if (json_int(v, &n)) {
		struct text out = { 0 };
		text_put(&out, "%" PRId64, n);
		must((out.len == v.len && memcmp(out.bytes, v.at, v.len) == 0) ||
			(n == 0 && json_is(v, "-0")));
		free(out.bytes);
	}
	if (json_is_string(v)) {
		char *text = json_text(v);
		must(text && utf8_valid(text, strlen(text)));
		free(text);
	}
	json_array_has(v, "\"raw\"");
	must(json_member(v, "v").at == NULL || *v.at == '{');
}

/* Writes text as a JSON string. The reader must read the same text from it. */
static void there_and_back(const char *text)
{
	struct text out = { 0 };
	struct span line;
	char *back;

	json_put_string(&out, text);
	must(!out.failed);
	line = (struct span){ out.bytes, out.len };
	must(json_valid(line) == utf8_valid(text, strlen(text)));
	if (json_valid(line)) {
		back = json_text(line);
		must(back && strcmp(back, text) == 0);
		free(back);
	}
	free(out.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = malloc(size + 1); /* with a NUL */
	char *exact = malloc(size ? size : 1); /* of the exact size, for the address sanitizer */
	struct span line = { exact, size };

	memcpy(copy, data, size);
	copy[size] = '\0';
	memcpy(exact, data, size);
	if (size > 0 && json_valid(line)) {
		must(utf8_valid(exact, size));
		read_value(json_member(line, "v"));
		if (*exact != ' ' && *exact != '\t' && *exact != '\r' && *exact != '\n')
			read_value(line);
	}
	there_and_back(copy);
	free(copy);
	free(exact);
	return 0;
}
