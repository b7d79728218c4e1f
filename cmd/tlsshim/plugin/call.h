/*
 * call.h - calls to tlsd over the process's session.
 *
 * The session is opened by the first call that needs one, and lives until tlsd
 * or its worker goes away. Then every call that waits on it fails as lost, and
 * so does every later call on one of its handles; the next call that can do
 * without a handle opens a new session. No call is ever sent twice.
 */
#ifndef TLSPLUGIN_CALL_H
#define TLSPLUGIN_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process.h"

/* What is peculiar about a method. */
enum {
	OPENS = 1,        /* needs no handle, so it may open a session */
	MAKES_HANDLE = 2, /* its result is a handle */
	TRUSTS = 4,       /* the session must have the CA bundle before it */
	QUIET = 8,        /* a failure is no error of the host's, except that it was cancelled */
	RUNS_AHEAD = 16,  /* see ahead.h: it is a Write */
	READS_AHEAD = 32, /* it is a Read, whose params are made there */
	MAKES_READY = 64, /* after it, its handle or the one that it makes can be written to */
};

enum result { NUMBER, TEXT, BLOB };

enum sort { NEITHER, CONNECTION, CONTEXT };

struct method {
	const char *name;
	enum result result;
	int flags;
	enum sort waits_on; /* such a handle, and a close of it ends the wait */
	enum sort closes;
};

/* One call. It lives on the stack of the thread that makes it. The caller fills
 * in the first part. */
struct call {
	const struct method *method;
	int64_t handle;     /* that it names; 0 if the method OPENS */
	const char *params; /* JSON array */
	const void *blob;   /* sent raw behind the request, if has_blob */
	size_t blob_len;
	bool has_blob;
	char *into; /* where a BLOB goes, into_cap bytes */
	size_t into_cap;

	int64_t number; /* a NUMBER, or the length of a BLOB */
	char *text;     /* a TEXT, which the caller frees */

	unsigned began; /* p->cancels at that time */

	/* The session's, guarded by the process's mu. */
	struct call *next, *prev, *same; /* among all calls, and among those of a bucket */
	int64_t id;
	struct stream *ahead;  /* it is a Write that runs ahead, on the heap, and nobody waits for it; else NULL */
	struct stream *drains; /* it is no request, but waits until less runs ahead there; else NULL */
	bool queues;           /* it is no request, but waits in the session's queue */
	struct call *behind;   /* in the queue */
	bool may_run_ahead;    /* it is a Write that may */
	bool reserved;         /* it is counted among what runs ahead in the session */
	bool patient;          /* it is a Close that is to wait for the Writes which run ahead */
	bool done, failed, lost;
	bool parked;       /* its thread waits on woken */
	bool begun;        /* its request is sent or being sent: only the leader can end it now */
	bool told;         /* tlsd knows that it is cancelled */
	int64_t cancel_by; /* when the session is given up if the call, which is cancelled, has no answer; else 0 */
	pthread_cond_t woken;
};

/* Makes the call and waits for its answer. Returns 0, or -1 with the process's
 * error set. */
int call_run(struct process *p, struct call *c);

/* tls.SetCaBundle for this session and those to come. Returns like call_run. */
int trust(struct process *p, const char *path);

/* Sets the error of a call that is cancelled. Returns -1. */
int call_cancelled(struct process *p, const struct call *c);

#endif
