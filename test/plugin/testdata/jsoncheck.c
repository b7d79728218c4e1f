/*
 * jsoncheck.c - prints how json.c reads the document in each line of its input:
 *
 *	no                             it is not valid
 *	yes none                       it is no object, or has no member v, or more than one
 *	yes [int N] [text HEX] [raw]   the member v is an integer, a string, an array with "raw"
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

int main(void)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) > 0) {
		/* The sanitizer finds reads beyond the copy. In line it would miss some, because
		 * the buffer of line is longer than the text. */
		char *copy = malloc((size_t)n - 1);
		struct span doc = { copy, (size_t)n - 1 }, v;
		int64_t number;

		memcpy(copy, line, doc.len);
		if (!json_valid(doc)) {
			puts("no");
			free(copy);
			continue;
		}
		fputs("yes", stdout);
		v = json_member(doc, "v");
		if (!v.at)
			fputs(" none", stdout);
		if (json_int(v, &number))
			printf(" int %" PRId64, number);
		if (json_is_string(v)) {
			char *text = json_text(v);
			fputs(" text ", stdout);
			for (char *p = text; *p; p++)
				printf("%02x", (unsigned char)*p);
			free(text);
		}
		if (json_array_has(v, "\"raw\""))
			fputs(" raw", stdout);
		puts("");
		free(copy);
	}
	free(line);
	return 0;
}
