/* For each line, a text: the bytes of base64.c in hexadecimal and their text again, or "no". */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"

int main(void)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) > 0) {
		/* of its exact size, for the address sanitizer */
		char *copy = strndup(line, (size_t)n - 1);
		size_t room = strlen(copy) / 4 * 3;
		unsigned char *to = malloc(room ? room : 1);
		int64_t len = base64_bytes(copy, to, room);

		if (len < 0) {
			puts("no");
		} else {
			char *again = base64_text(to, (size_t)len),
				*exact = malloc(len ? (size_t)len : 1);
			for (int64_t i = 0; i < len; i++)
				printf("%02x", to[i]);
			/* A room of exactly so many bytes does, one less does not. */
			printf(" %s %d\n", again, base64_bytes(copy, exact, (size_t)len) == len &&
						  (len == 0 || base64_bytes(copy, exact,
						  (size_t)len - 1) == -1));
			free(again);
			free(exact);
		}
		free(to);
		free(copy);
	}
	free(line);
	return 0;
}
