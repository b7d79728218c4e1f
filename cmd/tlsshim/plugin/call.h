/*
 * call.h - one call to tlsd over control, and the methods.
 */
#ifndef TLSPLUGIN_CALL_H
#define TLSPLUGIN_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "owned.h"

/* What is special about a method. */
enum {
	OPENS = 1,        /* it needs no handle, so it may open a session */
	NAMES_ZERO = 2,   /* it OPENS, and is called with the handle 0 */
	MAKES_HANDLE = 4, /* its result is a handle */
	SETTINGS = 8,     /* the session must have the process's settings before it (client.h) */
	QUIET = 16,       /* a failure is no error of the host's, except that it was cancelled */
	FAILS = 32,       /* it cannot succeed where it is used: its error is wanted */
};

enum result { NOTHING /* 0 */, NUMBER, TEXT, OBJECT /* as JSON */ };

enum sort { NEITHER, CONNECTION, CONTEXT };

/* A parameter that is a text. A path is made absolute. */
struct param {
	const char *name;
	enum { PLAIN, PATH, PATH_OR_EMPTY, OPTION_VALUE } is; /* a path, if the option has one */
};

enum { MOST_TEXTS = 3 };

/* Its parameters are the handle, unless it OPENS; then texts, a blob and a number; and at last 1,
 * if a descriptor goes along. */
struct method {
	const char *name;
	struct param texts[MOST_TEXTS]; /* up to the first without a name */
	bool blob, number;
	enum result result;
	int flags;
	enum sort waits_on; /* such a handle, and a close of it ends the wait */
	enum sort closes;
};

/* It lives on the stack of the thread that makes it. The caller fills in the first part. */
struct call {
	const struct method *method;
	const char *op;           /* what errors name, if that is not the method */
	int64_t handle;           /* that it names; 0 if the method OPENS */
	const char *texts[MOST_TEXTS];
	const void *blob;
	size_t blob_len;
	void *buf;                /* of the host, for a text or data that comes back */
	size_t room;              /* its size */
	const char *otherwise;    /* the text of a call that fails, or NULL */
	int64_t n;                /* the number */
	struct owned *pass;       /* a descriptor that goes along and is closed then, or NULL */
	struct owned *pass_first;       /* one that goes before pass and stays open, or NULL */
	bool is_part;             /* of a function of tlsplugin.h, and began is set */
	unsigned began;           /* the process's cancels when it began */

	int64_t number;   /* a NUMBER, else 0 */
	char *text;       /* a TEXT or an OBJECT, which the caller frees */
	struct kind kind; /* of an error of tlsd's */

	const char *params; /* JSON array, made by client_run */

	/* The session's, guarded by the process's mu. */
	struct call *next;
	int64_t id;
	bool done, failed, lost;
	bool parked;       /* its thread waits on woken */
	bool sent;          /* its request is sent or being sent: only the leader can end it now */
	bool cancel_sent;  /* tlsd knows that it is cancelled */
	int64_t cancel_by; /* when the session is given up if the call, which is cancelled, has no
			    * answer; else 0 */
	pthread_cond_t woken;
};

/* What errors of the call name. */
static inline const char *call_op(const struct call *c)
{
	return c->op ? c->op : c->method->name;
}

#endif
