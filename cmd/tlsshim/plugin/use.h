/*
 * use.h - one call's use of a connection's data channel: its place among other calls on the
 * channel, and what has gone wrong there.
 *
 * The channel has no place for an error. Its end says that something has happened, and tls.Status
 * on control says what. That is asked once for a direction, and then remembered. An error of
 * writing that no call has raised is raised by the next call on the handle, whichever it is.
 */
#ifndef TLSPLUGIN_USE_H
#define TLSPLUGIN_USE_H

#include "client.h"

struct use {
	struct wait wait; /* the first, so that a pointer to it is one to the whole */
	struct process *p;
	struct session *s;
	struct channel *ch;  /* NULL: nothing is known of the handle */
	struct direction *d; /* whose turn the call has */
	const char *op;
	int64_t handle;
	unsigned began; /* p->cancels at that time */
};

/* False and the error set if the handle belongs to no session. p may be NULL. */
bool use_begin(struct use *u, struct process *p, const char *op, int64_t handle);
void use_end(struct use *u);

/* A call that is a part of the use. */
struct call use_call(const struct use *u, const struct method *m);

/* Whether the connection has its data channel, and has done its handshake. */
bool use_has_data(const struct use *u);

/* The descriptor of the channel; -1, the session lost and the error set if it has been replaced. */
int use_fd(struct use *u);

/* Sets the error and returns -1. mu is not held. */
int use_fail(struct use *u, const char *kind, const char *why);

/* The same for a wait that has ended early: cancelled, closed or lost. */
int use_fail_ended(struct use *u);

/* Takes the turn of a direction, and mu with it. False and the error set, without mu, if the call
 * is cancelled or the handle closed before. */
bool use_take_turn(struct use *u, struct direction *d);

/* Gives the turn back. mu is held, and given up. */
void use_give_turn_back(struct use *u);

/* Waits for an event, as wait_for does. The call has a turn, and mu is not held. */
enum waited use_wait(struct use *u, int fd, short events, int64_t deadline);

/* Asks tlsd why the direction has ended. False and the error set if it does not say. mu is not
 * held. */
bool use_ask(struct use *u);

/* Whether the connection can be written to; if not, the error is set. mu is held. */
bool use_can_write(struct use *u);

#endif
