/*
 * session.h - one session: a socket to tlsd, and the calls that wait on it.
 */
#ifndef TLSPLUGIN_SESSION_H
#define TLSPLUGIN_SESSION_H

#include "ahead.h"
#include "call.h"
#include "find.h"

enum { HELLO_ID = 1, CALL_BUCKETS = 256, STREAM_BUCKETS = 256 };

struct session {
	struct wire wire;
	char path[SOCKET_PATH_BYTES];
	int64_t first;    /* handle that it may give out */
	int64_t hello_by; /* when the answer to Hello must be there */
	unsigned born;    /* p->cancels at that time */

	/* Guarded by the process's mu. */
	int refs; /* the process's and one for each call that a thread waits for */
	struct call *calls;                       /* of threads, the youngest first */
	struct call *calls_ahead;                 /* that run ahead, the youngest first */
	struct call *by_id[CALL_BUCKETS];         /* by the low bits of the id */
	struct stream *streams[STREAM_BUCKETS];   /* by those of the handle */
	char *spare;                              /* room for a Read, or NULL */
	unsigned waiting;                         /* threads */
	unsigned ahead;                           /* Writes that run ahead, or are about to */
	size_t ahead_bytes;                       /* in these */
	struct call *queue, **queue_end;          /* Writes that wait until less runs ahead in the session; the oldest first */
	bool granted;                             /* one has been let go on, and has not yet */
	bool progress, stuck;                     /* since progress_at answers to Writes have come, or for long none */
	int64_t progress_at;                      /* when that was looked at last */
	int64_t next_id;
	bool led, agreed, lost;
	unsigned heard;      /* p->cancels when it was looked at last */
	int cancelling;      /* calls that have a cancel_by */
	int awaiting_writes; /* threads that wait for answers to Writes */
	unsigned ca_version; /* the one of the process that holds here */
	char why[WHY_BYTES]; /* it is lost, or will be */

	struct turn sending; /* the right to send; taken while a message goes out */
	bool greeted;        /* belongs to who has that turn */
};

/* A session on a socket of find.h, with one reference; NULL if there is no memory. */
struct session *session_make(struct process *p, int fd, const char *path, unsigned born);

/* Gives up a reference. mu is not held. */
void session_release(struct process *p, struct session *s);

/* Makes the call on a session that the caller has a reference of. Returns like call_run. */
int session_call(struct process *p, struct session *s, struct call *c);

/* The process's session with a reference, or NULL if it has none that can be
 * used. mu is held; the caller has the turn to open one. */
struct session *session_current(struct process *p, unsigned began);

/* Waits, at the end of the process, until nothing runs ahead any more. mu is held. */
void session_finish(struct process *p, struct session *s);

/* --- for session.c, answer.c and ahead.c; mu is held --- */

/* (calls.c) */
void calls_add(struct session *s, struct call *c);
void calls_remove(struct session *s, struct call *c);
struct call *calls_find(struct session *s, int64_t id);

/* Makes a wait one of the session's until it is done. */
void session_wait(struct process *p, struct session *s, struct call *c);

/* Ends a call whose thread waits, as tls_Cancel does. */
void session_cancel(struct session *s, struct call *c);

/* Gives an answer to the call that it belongs to; false if tlsd breaks the
 * protocol or says why it ends the session. The leader does that, with mu held,
 * which is left while a blob is read, in w. (answer.c) */
bool answer_deliver(struct process *p, struct session *s, struct answer *a, struct wait *w, char *why);

#endif
