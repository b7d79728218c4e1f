/*
 * base64check.c - decodes each line of its input with base64.c
 *
 * For each line it prints the bytes in hexadecimal, the base64 text of these bytes, and 1 if
 * base64_bytes keeps to the size of its buffer (else 0). If the line is no base64, it prints "no".
 */
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
		/* The sanitizer finds reads beyond the copy. In line it would miss some, because
		 * the buffer of line is longer than the text. */
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
			/* A buffer of len bytes must be enough, and one of len - 1 too small. */
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
