/*
 * util.h - memory, texts, and the failure of a run
 *
 * If memory cannot be allocated, the program ends. Data that lives as long as the
 * script is allocated in an arena.
 *
 * Each function that can fail takes a Failure. If it fails, it fills in the Failure
 * and returns false, and its callers return false, too. Only the first failure is kept.
 */
#ifndef UTIL_H
#define UTIL_H

#include <stdbool.h>
#include <stddef.h>

/* Like malloc and realloc, but if there is no memory, they print a line and call exit(1). */
void *must_alloc(size_t size);
void *must_realloc(void *p, size_t size);
/* A copy of len bytes of text with a NUL, from must_alloc. */
char *copy_text(const char *text, size_t len);
/* printf into a string from must_alloc. */
char *format_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Memory that is freed all at once. Starts as {0}. */
typedef struct Arena {
	struct ArenaBlock *blocks;
} Arena;

void *arena_alloc(Arena *a, size_t size); /* zeroed, aligned for any type */
char *arena_text(Arena *a, const char *text, size_t len);
void arena_free(Arena *a);

/* Why the script cannot go on. Starts as {0}; text is freed by failure_free. */
typedef struct {
	int line;
	char *text;
} Failure;

/* Records the failure unless there is one already. Always returns false. */
bool fail(Failure *f, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts a text in front of the recorded failure: "TEXT: FAILURE". Always returns false. */
bool fail_in(Failure *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void failure_free(Failure *f);

#endif
