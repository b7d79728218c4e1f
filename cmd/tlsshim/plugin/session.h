/*
 * session.h - one session: the control socket to tlsd, the calls that wait on it, and the
 * channels of its connections.
 *
 * The leader is the waiting thread that reads answers for all (exchange.c).
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
	int64_t first; /* tlsd gives out no lower handle in this session */
	uid_t euid;    /* the process's effective user when the session was made */

	/* Guarded by the process's mu. */
	int refs; /* one for the struct process, and one for each thread that has a pointer */
	struct call *calls; /* the youngest first */
	struct channels channels;
	int64_t next_id;
	int64_t read_timeout; /* the daemon's timeout of a Read, in ms; 0: none */
	bool has_leader, lost;
	unsigned cancels_seen; /* the value of p->cancels when exchange.c looked at it last */
	int cancelling;        /* cancelled calls that have not returned yet */
	/* For each setting, the value of p->set (how often it was set) when the session got it. If
	 * p->set has changed since then, the session lacks the newest value. */
	unsigned set[SETTINGS_KEPT];
	int64_t waited_for;  /* the handle that tls_Wait has returned most recently */
	char why[WHY_BYTES]; /* why the session is lost, or is about to be */

	struct turn sending; /* the right to send; taken while a message goes out */
};

/* Makes a session on a socket that find_tlsd has returned. The session owns the socket. The caller
 * gets the only reference to the session. Returns NULL, with the socket closed, if there is no
 * memory. */
struct session *session_make(struct process *p, struct owned *sock);

/* Sends tls.Hello and waits for the answer, for 10 s at most. Returns false, with the reason in
 * why, if no answer comes in time, if w->look() ends the wait, or if the plugin cannot work with
 * this tlsd. */
bool session_greet(struct session *s, struct wait *w, char why[WHY_BYTES]);

/* mu must be held. Gives up a reference, and then mu. */
void session_release(struct process *p, struct session *s);

/* Gives up a reference. s may be NULL. mu must not be held. */
void session_drop(struct process *p, struct session *s);

/* Makes the call and waits for its answer. The caller must have a reference to the session. mu must
 * not be held. Returns 0 if the call succeeds. Otherwise returns -1 and sets the last error
 * (error.h). If the method is QUIET (call.h), only a call that is cancelled sets the error. */
int session_call(struct process *p, struct session *s, struct call *c);

/* Ends the session. The waiting calls fail with kind lost. The parameter why is the reason in their
 * errors, unless s->why has a reason already. mu must be held. The caller must have a reference, so
 * that the session is not freed meanwhile. */
void session_lose(struct process *p, struct session *s, const char *why);

/* Ends the process's session if the effective user has changed. If control is true, the function
 * also ends the session if the host has closed or replaced the control socket. mu is held. */
void session_check(struct process *p, bool control);

/* Sets the error of a call that is cancelled. Returns -1. (exchange.c) */
int session_cancelled(struct process *p, const struct call *c);

/* Makes the calling thread the leader until it has read one answer. If the reading fails, or no
 * answer has come at the deadline (0: no deadline), the function ends the session. mu must be held,
 * and there must be no leader. During the reading mu is not held. (exchange.c) */
void session_lead(struct process *p, struct session *s, int64_t deadline);

/* If there is no leader, wakes a waiting thread, which becomes the leader. mu is held.
 * (exchange.c) */
void session_wake_leader(struct session *s);

/* Returns the channel of a handle of the process's session. If the handle has no channel and make
 * is true, the function makes the channel. Returns NULL if there is no channel, no memory, or no
 * session with the handle. mu is held. */
struct channel *session_handle(struct process *p, int64_t handle, bool make);

/* Passes an answer on to the call that waits for it. Returns false, with the reason in why, if tlsd
 * breaks the protocol or ends the session. Only the leader calls it, with mu held. (answer.c) */
bool answer_deliver(struct process *p, struct session *s, struct span line, char *why);

/* Checks the answer to tls.Hello, and stores the daemon's timeout of a Read in s. Returns false,
 * with the reason in why, if the plugin cannot work with this tlsd. (answer.c) */
bool answer_agree(struct session *s, struct span line, char *why);

#endif
