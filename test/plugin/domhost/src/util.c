/* util.c - see util.h */
#include "util.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ArenaBlock {
	struct ArenaBlock *next;
	max_align_t data[];
} ArenaBlock;

static void *checked(void *p)
{
	if (p == NULL) {
		fputs("domhost: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

void *must_alloc(size_t size)
{
	return checked(malloc(size > 0 ? size : 1));
}

void *must_realloc(void *p, size_t size)
{
	return checked(realloc(p, size > 0 ? size : 1));
}

char *copy_text(const char *text, size_t len)
{
	char *copy = must_alloc(len + 1);
	if (len > 0)
		memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

static char *format_list(const char *fmt, va_list args)
{
	va_list again;
	va_copy(again, args);
	int len = vsnprintf(NULL, 0, fmt, args);
	char *text = must_alloc(len < 0 ? 1 : (size_t)len + 1);
	text[0] = '\0';
	if (len > 0)
		vsnprintf(text, (size_t)len + 1, fmt, again);
	va_end(again);
	return text;
}

char *format_text(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	char *text = format_list(fmt, args);
	va_end(args);
	return text;
}

void *arena_alloc(Arena *a, size_t size)
{
	ArenaBlock *b = checked(calloc(1, sizeof *b + size));
	b->next = a->blocks;
	a->blocks = b;
	return b->data;
}

char *arena_text(Arena *a, const char *text, size_t len)
{
	char *copy = arena_alloc(a, len + 1);
	if (len > 0)
		memcpy(copy, text, len);
	return copy;
}

void arena_free(Arena *a)
{
	while (a->blocks != NULL) {
		ArenaBlock *next = a->blocks->next;
		free(a->blocks);
		a->blocks = next;
	}
}

bool fail(Failure *f, int line, const char *fmt, ...)
{
	if (f->text != NULL)
		return false;
	va_list args;
	va_start(args, fmt);
	f->line = line;
	f->text = format_list(fmt, args);
	va_end(args);
	return false;
}

bool fail_in(Failure *f, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	char *where = format_list(fmt, args), *text = f->text;
	va_end(args);
	f->text = format_text("%s: %s", where, text);
	free(where);
	free(text);
	return false;
}

void failure_free(Failure *f)
{
	free(f->text);
	f->text = NULL;
}
