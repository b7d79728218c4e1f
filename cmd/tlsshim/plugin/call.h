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

/* What is peculiar about a method. */
enum {
	OPENS = 1,        /* needs no handle, so it may open a session */
	MAKES_HANDLE = 2, /* its result is a handle */
	TRUSTS = 4,       /* the session must have what the process has set for clients before it */
	QUIET = 8,        /* a failure is no error of the host's, except that it was cancelled */
	FAILS = 16,       /* cannot succeed where it is used: it is made for its error */
};

enum result { NUMBER, TEXT, OBJECT /* as JSON */ };

enum sort { NEITHER, CONNECTION, CONTEXT };

struct method {
	const char *name;
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
	const char *texts[3];     /* its parameters behind the handle, up to the first NULL */
	const int64_t *n;         /* a number behind these, or NULL */
	const char *params;       /* JSON array; client_run makes it of these */
	struct owned *pass;       /* a descriptor that goes along and is closed then, or NULL */
	struct owned *lend;       /* one that goes before pass and stays open, or NULL */
	bool is_part;             /* of a function of tlsplugin.h, and began is set */
	unsigned began;           /* the process's cancels when it began */

	int64_t number; /* a NUMBER */
	char *text;     /* a TEXT or an OBJECT, which the caller frees */
	struct kind kind; /* of an error of tlsd's */

	/* The session's, guarded by the process's mu. */
	struct call *next;
	int64_t id;
	bool done, failed, lost;
	bool parked;       /* its thread waits on woken */
	bool begun;        /* its request is sent or being sent: only the leader can end it now */
	bool told;         /* tlsd knows that it is cancelled */
	int64_t cancel_by; /* when the session is given up if the call, which is cancelled, has no
			    * answer; else 0 */
	pthread_cond_t woken;
};

#endif
