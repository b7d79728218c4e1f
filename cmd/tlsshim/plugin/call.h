/*
 * call.h - one call to tlsd over the control socket, and the methods.
 */
#ifndef TLSPLUGIN_CALL_H
#define TLSPLUGIN_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "owned.h"

/* The flags of a method. */
enum {
	OPENS = 1,        /* it needs no handle, so it may open a session */
	NAMES_ZERO = 2,   /* with OPENS: its parameters begin with the handle 0 */
	MAKES_HANDLE = 4, /* its result is a handle */
	SETTINGS = 8,     /* the session gets the process's settings before the call (client.h) */
	QUIET = 16,       /* the host gets no error of the call, unless the call is cancelled */
	FAILS = 32,       /* the plugin wants only tlsd's error; a result breaks the protocol */
};

/* With NOTHING, tlsd answers with a number, and the host gets 0. */
enum result { NOTHING, NUMBER, TEXT, OBJECT /* as JSON */ };

enum sort { NEITHER, CONNECTION, CONTEXT }; /* the sort of a handle */

/* A parameter that is a text. A path is made absolute. An OPTION_VALUE is a path for some options
 * only. */
struct param {
	const char *name;
	enum { PLAIN, PATH, PATH_OR_EMPTY, OPTION_VALUE } is;
};

enum { MOST_TEXTS = 3 };

/* A method of proto.md. Its parameters are, in this order: the handle, the texts, the blob, the
 * number, and 1 if a descriptor is sent with the call. There is a blob only if the member blob is
 * true, and a number only if the member number is true. With the flag OPENS there is no handle;
 * with OPENS and NAMES_ZERO the handle is 0. */
struct method {
	const char *name;
	struct param texts[MOST_TEXTS]; /* the first entry without a name ends the list */
	bool blob, number;
	enum result result;
	int flags;
	/* The sort of the handle on which the call waits. A close of the handle ends the call.
	 * NEITHER: the call does not wait on a handle. */
	enum sort waits_on;
	enum sort closes; /* the sort of the handle that the call closes; NEITHER: none */
};

/* A call lives on the stack of the thread that makes it. */
struct call {
	/* The thread that makes the call fills in these members. */
	const struct method *method;
	const char *op;           /* the name for errors; NULL: the method's name */
	int64_t handle;           /* 0 if the method has the flag OPENS */
	const char *texts[MOST_TEXTS];
	const void *blob;
	size_t blob_len;
	void *buf;                /* the host's buffer for a text or for data */
	size_t room;              /* the size of buf */
	const char *otherwise;    /* the text that the host gets if the call fails, or NULL */
	int64_t n;                /* the parameter that is a number */
	struct owned *pass;       /* a descriptor to send and then to close, or NULL */
	struct owned *pass_first; /* a descriptor to send before pass, and to keep; or NULL */
	bool is_part;             /* the call belongs to a struct use (use.h) */
	unsigned began;           /* p->cancels at the beginning of the call, or of its use */

	/* The session fills in these members. */
	int64_t number;   /* the result, if it is a NUMBER; else 0 */
	char *text;       /* the result, if it is a TEXT or an OBJECT; the caller frees it */
	struct kind kind; /* the kind of an error that tlsd has answered */

	const char *params; /* the parameters as a JSON array, stored here by client.c */

	/* These members belong to the session, and the process's mu guards them. */
	struct call *next;
	int64_t id;
	bool done, failed, lost;
	bool parked;      /* the call's thread waits for the condition woken */
	bool sent;        /* it is sent or being sent: only an answer or session_lose ends it now */
	bool cancel_sent; /* tlsd knows that it is cancelled */
	/* 0: the call is not cancelled. Otherwise a time of now_ms(): if the call has no answer by
	 * then, the session is lost. */
	int64_t cancel_by;
	pthread_cond_t woken;
};

/* The name of the call in errors. */
static inline const char *call_op(const struct call *c)
{
	return c->op ? c->op : c->method->name;
}

#endif
