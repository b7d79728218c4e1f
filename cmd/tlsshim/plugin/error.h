/*
 * error.h - the errors that the host can ask for: a text, a kind and the kind's code.
 *
 * Each thread has its own last error, and the process has the last error of all threads. The
 * thread's needs no lock; mu of the process guards the process's. If there is no memory for a
 * thread's, the process's stands for it, without a kind.
 */
#ifndef TLSPLUGIN_ERROR_H
#define TLSPLUGIN_ERROR_H

#include <stddef.h>
#include <stdint.h>

#include "json.h"

enum { ERROR_BYTES = 4096, KIND_BYTES = 24 };

struct kind {
	char name[KIND_BYTES]; /* "": no error */
	int32_t code;          /* of JSON-RPC */
};

/* A kind of proto.md, with its code. */
struct kind kind_of(const char *name);

/* The kind of an error object of tlsd's; "internal" if it has none. */
struct kind kind_read(struct span error);

struct process;

/* Sets the last error of this thread and of the process and returns -1. The text is "op: handle N:
 * why", or "op: why" if the handle is 0. mu is not held; for fail_held it is. p may be NULL. */
__attribute__((format(printf, 5, 6)))
int fail(struct process *p, const char *kind, const char *op, int64_t handle, const char *why, ...);
__attribute__((format(printf, 5, 6)))
int fail_held(struct process *p, const char *kind, const char *op, int64_t handle, const char *why,
	      ...);

/* Sets an error of tlsd's, of which a first part may be replaced. mu is held. Returns -1. */
int error_set(struct process *p, struct kind kind, const char *first, const char *rest);

/* This thread's last call has succeeded: its kind is "" now, its text stays. p may be NULL. */
void error_clear(struct process *p);

/* The kind of this thread's last call. p may be NULL. */
struct kind error_kind(const struct process *p);

/* The end of the library: threads that end no longer call it. */
void error_end(void);

/* Frees the errors of all threads, when nobody uses the process any more. */
void errors_free(struct process *p);

/* Copies the text of this thread's last error, or of the process's. mu is not held. */
void error_text(struct process *p, char text[ERROR_BYTES]);

#endif
