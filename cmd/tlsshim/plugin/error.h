/*
 * error.h - the errors that the host can ask for: a text, a kind and the kind's code.
 *
 * Each thread has its own last error, which needs no lock. The process has the most recent error of
 * all threads, which mu of the process guards. If there is no memory for a thread's error, the
 * process's error takes its place, without a kind. "The error" and "the last error" in other
 * comments of the plugin mean both: a function that sets the error sets both.
 */
#ifndef TLSPLUGIN_ERROR_H
#define TLSPLUGIN_ERROR_H

#include <stddef.h>
#include <stdint.h>

#include "json.h"

enum { ERROR_BYTES = 4096, KIND_BYTES = 24 };

struct kind {
	char name[KIND_BYTES]; /* "": no error */
	int32_t code;          /* the code of JSON-RPC */
};

/* The kind of proto.md with this name, and its code; "internal" if there is no such kind. */
struct kind kind_of(const char *name);

/* The kind of an error object that tlsd has sent; "internal" if the object has none. */
struct kind kind_read(struct span error);

struct process;

/* fail() and fail_held() set the last error of this thread and of the process, and return -1. The
 * text is "op: handle N: why", or "op: why" if the handle is 0. Call fail_held() with mu held, and
 * fail() without mu. For fail(), p may be NULL. */
__attribute__((format(printf, 5, 6)))
int fail(struct process *p, const char *kind, const char *op, int64_t handle, const char *why, ...);
__attribute__((format(printf, 5, 6)))
int fail_held(struct process *p, const char *kind, const char *op, int64_t handle, const char *why,
	      ...);

/* Sets the last error of this thread and of the process to a kind and a text, and returns -1. The
 * text is the parameter first, followed by the parameter rest. mu is held. */
int error_set(struct process *p, struct kind kind, const char *first, const char *rest);

/* Notes that this thread's last call has succeeded. The kind becomes "", and the text stays. p may
 * be NULL. */
void error_clear(struct process *p);

/* The kind of the error of this thread's last call; "" if the call has succeeded. If p is NULL, the
 * kind is "limit". */
struct kind error_kind(const struct process *p);

/* Call it when the library is unloaded. Afterwards no function of the library runs when a thread
 * ends. */
void error_end(void);

/* Frees the errors of all threads. No thread may use p any more. */
void errors_free(struct process *p);

/* Copies the text of this thread's last error. If the thread has none, copies the text of the
 * process's last error. If p is NULL, the text is "out of memory". mu is not held. */
void error_text(struct process *p, char text[ERROR_BYTES]);

#endif
