/*
 * session.h - one session: the control socket to tlsd, the calls that wait on it, and the
 * channels of its connections.
 */
#ifndef TLSPLUGIN_SESSION_H
#define TLSPLUGIN_SESSION_H

#include <sys/types.h>

#include "call.h"
#include "channel.h"
#include "find.h"
#include "process.h"
#include "wire.h"

enum { HELLO_ID = 1 };

struct session {
	struct wire wire;
	int64_t first; /* handle that it may give out */
	uid_t euid;    /* of the process when it was made */

	/* Guarded by the process's mu. */
	int refs; /* the process's and one for each thread that has a pointer */
	struct call *calls; /* the youngest first */
	struct channels channels;
	int64_t next_id;
	int64_t read_timeout; /* the daemon's for a Read, in ms; 0: none */
	bool led, lost;
	unsigned heard;      /* p->cancels when it was looked at last */
	int cancelling;      /* calls that have a cancel_by */
	unsigned ca_version; /* the one of the process that holds here */
	int32_t connect_timeout; /* the one of the process that holds here, in ms; 0: the daemon's */
	int64_t waited_for;  /* the handle that tls_Wait has given last */
	char why[WHY_BYTES]; /* it is lost, or will be */

	struct turn sending; /* the right to send; taken while a message goes out */
};

/* A session on a socket of find.h, which it takes over, with one reference. NULL and errno if
 * that cannot be done. */
struct session *session_make(struct process *p, int fd);

/* Says Hello and waits for the answer. False and why if that ends otherwise, or w before it. */
bool session_greet(struct session *s, struct wait *w, char why[WHY_BYTES]);

/* Gives up a reference, and mu, which is held. */
void session_release(struct process *p, struct session *s);

/* Makes the call and waits for its answer. The caller has a reference of the session. Returns
 * 0, or -1 with the process's error set. */
int session_call(struct process *p, struct session *s, struct call *c);

/* The process's session with a reference, or NULL if it has none that can be used. mu is held. */
struct session *session_current(struct process *p);

/* Ends the session. mu is held, and the caller has a reference, or there is no other thread. */
void session_lose(struct process *p, struct session *s, const char *why);

/* Ends the process's session, if there is one and it is not what it was: the user has changed or,
 * if control says that this matters, its socket was replaced. mu is held. */
void session_check(struct process *p, bool control);

/* Sets the error of a call that is cancelled. Returns -1. */
int session_cancelled(struct process *p, const struct call *c);

/* Gives an answer to the call that it belongs to; false if tlsd breaks the protocol or says why
 * it ends the session. The leader does that, with mu held. (answer.c) */
bool answer_deliver(struct process *p, struct session *s, struct span line, char *why);

/* Takes the answer to Hello; false and why if it is none that we can agree with. (answer.c) */
bool answer_agree(struct session *s, struct span line, char *why);

#endif
