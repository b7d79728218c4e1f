/*
 * session.h - one session: the control socket to tlsd, the calls that wait on it, and the
 * channels of its connections.
 */
#ifndef TLSPLUGIN_SESSION_H
#define TLSPLUGIN_SESSION_H

#include <sys/types.h>

#include "call.h"
#include "channel.h"
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
	bool has_leader, lost;
	unsigned cancels_seen;      /* p->cancels when it was looked at last */
	int cancelling;      /* calls that have a cancel_by */
	unsigned set[SETTINGS_KEPT]; /* p->set of those that it has */
	int64_t waited_for;  /* the handle that tls_Wait has given last */
	char why[WHY_BYTES]; /* it is lost, or will be */

	struct turn sending; /* the right to send; taken while a message goes out */
};

/* A session on a socket of find.h, which it takes over, with one reference. NULL without memory. */
struct session *session_make(struct process *p, struct owned *sock);

/* Says Hello and waits for the answer. False and why if that ends otherwise, or w before it. */
bool session_greet(struct session *s, struct wait *w, char why[WHY_BYTES]);

/* Gives up a reference, and mu, which is held. */
void session_release(struct process *p, struct session *s);

/* The same for a session that may be NULL, while mu is not held. */
void session_drop(struct process *p, struct session *s);

/* Makes the call and waits for its answer. The caller has a reference of the session. Returns
 * 0, or -1 with the process's error set. */
int session_call(struct process *p, struct session *s, struct call *c);

/* Ends the session. mu is held, and the caller has a reference, or there is no other thread. */
void session_lose(struct process *p, struct session *s, const char *why);

/* Ends the process's session, if there is one and it is not what it was: the user has changed or,
 * if control says that this matters, its socket was replaced. mu is held. */
void session_check(struct process *p, bool control);

/* Sets the error of a call that is cancelled. Returns -1. (exchange.c) */
int session_cancelled(struct process *p, const struct call *c);

/* Reads one answer, or ends the session; by is the deadline, 0 for none. mu is held before and
 * after, and nobody leads. (exchange.c) */
void session_lead(struct process *p, struct session *s, int64_t by);

/* Wakes a thread that is to lead, if there is one. mu is held. (exchange.c) */
void session_wake_leader(struct session *s);

/* What is known of a handle of the process's present session. NULL if nothing is; if it has to be
 * made, only without a session of the handle, or without memory. mu is held. */
struct channel *session_handle(struct process *p, int64_t handle, bool make);

/* Gives an answer to the call that it belongs to; false if tlsd breaks the protocol or says why
 * it ends the session. The leader does that, with mu held. (answer.c) */
bool answer_deliver(struct process *p, struct session *s, struct span line, char *why);

/* Takes the answer to Hello; false and why if it is none that we can agree with. (answer.c) */
bool answer_agree(struct session *s, struct span line, char *why);

#endif
