/*
 * use.h - one call's use of a connection's data channel. Calls in the same direction (reading or
 * writing) take turns. This file has the turn of a call, its waits, and the errors of the channel.
 *
 * The channel cannot carry the text of an error. The plugin learns from recv(2) or send(2) that a
 * direction has ended, and asks tlsd with tls.Status why. The plugin keeps the answer, so it does
 * not ask about this direction again. A host that has written must learn of an error of writing. If
 * no call has returned this error yet, the next call on the handle returns it, whatever that call
 * is.
 *
 * mu is the lock of the struct process. "mu is held" and "mu is not held" are demands on the
 * caller.
 */
#ifndef TLSPLUGIN_USE_H
#define TLSPLUGIN_USE_H

#include "client.h"

struct use {
	/* Must be first, because look() of use.c casts the address of wait to the address of the
	 * struct. */
	struct wait wait;
	struct process *p;
	struct session *s;
	struct channel *ch;  /* NULL: the plugin knows nothing of the handle */
	struct direction *d; /* the direction whose turn the call has */
	const char *op;
	int64_t handle;
	unsigned began; /* p->cancels when the use began */
};

/* Begins a use. Returns false with the error set if the handle belongs to no session. Also returns
 * false if p is NULL. */
bool use_begin(struct use *u, struct process *p, const char *op, int64_t handle);
void use_end(struct use *u);

/* Makes a struct call for a call of the method m to tlsd. This call is a part of the use (is_part),
 * and has the use's name and handle. The function sends nothing. */
struct call use_call(const struct use *u, const struct method *m);

/* Says whether the connection has its data channel, which it has from the handshake on. */
bool use_has_data(const struct use *u);

/* Returns the descriptor of the channel. If the host has replaced it, the session is lost, and the
 * result is -1 with the error set. */
int use_fd(struct use *u);

/* Sets the error and returns -1. mu is not held. */
int use_fail(struct use *u, const char *kind, const char *why);

/* Sets the error of a wait that has ended early (cancelled, closed or lost), and returns -1. */
int use_fail_ended(struct use *u);

/* Waits for the turn of a direction, and takes the turn and mu. Returns false, with the error set
 * and without mu, if meanwhile the call was cancelled, the handle was closed, or the session was
 * lost. */
bool use_take_turn(struct use *u, struct direction *d);

/* Gives the turn back, and gives mu up. */
void use_give_turn_back(struct use *u);

/* Waits for an event, as wait_for does. The call must have the turn of a direction. mu is not
 * held. */
enum waited use_wait(struct use *u, int fd, short events, int64_t deadline);

/* Asks tlsd why the direction u->d has ended. Returns false with the error set if tlsd does not
 * say. mu is not held. */
bool use_ask(struct use *u);

/* Says whether the connection can be written to. If not, it sets the error. mu is held. */
bool use_can_write(struct use *u);

#endif
