#define _POSIX_C_SOURCE 200809L
#include "use.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"

static const struct method status = { .name = "tls.Status", .result = OBJECT };

static void look(struct wait *w)
{
	struct use *u = (struct use *)w;

	pthread_mutex_lock(&u->p->mu);
	turn_wake_all(&u->d->turn);
	w->ended = process_cancelled(u->p, u->began) || u->ch->closing || u->s->lost;
	pthread_mutex_unlock(&u->p->mu);
}

bool use_begin(struct use *u, struct process *p, const char *op, int64_t handle)
{
	*u = (struct use){ .p = p, .op = op, .handle = handle };
	if (!p)
		return false;
	u->wait = (struct wait){ .bell = &p->bell, .look = look };
	u->began = atomic_load(&p->cancels);
	u->s = client_session(p, op, handle, false, &u->ch);
	return u->s != NULL;
}

void use_end(struct use *u)
{
	pthread_mutex_lock(&u->p->mu);
	channel_release(u->ch);
	session_release(u->p, u->s);
}

struct call use_call(const struct use *u, const struct method *m)
{
	return (struct call){ .method = m, .op = u->op, .handle = u->handle, .is_part = true,
			      .began = u->began };
}

bool use_has_data(const struct use *u)
{
	return u->ch && u->ch->fd && !u->ch->context;
}

int use_fail(struct use *u, const char *kind, const char *why)
{
	return fail(u->p, kind, u->op, u->handle, "%s", why);
}

static int fail_lost(struct use *u)
{
	return fail(u->p, "lost", u->op, u->handle, "lost: %s", u->s->why);
}

int use_fd(struct use *u)
{
	int fd = owned_fd(u->ch->fd);

	if (fd >= 0)
		return fd;
	pthread_mutex_lock(&u->p->mu);
	session_lose(u->p, u->s, WIRE_REPLACED);
	pthread_mutex_unlock(&u->p->mu);
	return fail_lost(u);
}

int use_fail_ended(struct use *u)
{
	if (process_cancelled(u->p, u->began))
		return use_fail(u, "cancelled", "cancelled by the caller");
	if (atomic_load(&u->ch->closing))
		return use_fail(u, "cancelled", "the handle was closed while the call waited");
	return fail_lost(u);
}

/* --- turns and waits --- */

bool use_take_turn(struct use *u, struct direction *d)
{
	bool taken;

	pthread_mutex_lock(&u->p->mu);
	taken = turn_take(u->p, &d->turn, u->began);
	u->d = d;
	if (taken && !u->ch->closing && !u->s->lost)
		return true;
	if (taken)
		turn_give_back(&d->turn);
	pthread_mutex_unlock(&u->p->mu);
	use_fail_ended(u);
	return false;
}

void use_give_turn_back(struct use *u)
{
	turn_give_back(&u->d->turn);
	pthread_mutex_unlock(&u->p->mu);
}

enum waited use_wait(struct use *u, int fd, short events, int64_t deadline)
{
	u->wait.deadline = deadline;
	return wait_for(fd, events, &u->wait);
}

/* --- errors of a direction --- */

/* Stores in d what the answer to tls.Status says of this direction: its state, which is in the span
 * said, and its error, which is in the span error. mu is held. */
static void note(struct direction *d, struct span said, struct span error)
{
	struct span message = json_member(error, "message");

	if (d->state != OPEN && d->state != CUT_SHORT)
		return;
	if (json_is(said, "\"failed\"")) {
		d->error = json_is_string(message) ? json_text(message) : NULL;
		d->kind = kind_read(error);
		d->state = BROKEN_OFF;
	} else if (d->state == OPEN && (json_is(said, "\"end\"") || json_is(said, "\"shut\""))) {
		d->state = ENDED_WELL;
	}
}

bool use_ask(struct use *u)
{
	struct call c = use_call(u, &status);
	struct span said;
	bool known;

	if (atomic_load(&u->ch->closing)) { /* tls_Close has ended the direction */
		use_fail_ended(u);
		return false;
	}
	if (client_run(u->p, &c) < 0)
		return false;
	said = (struct span){ c.text, strlen(c.text) };
	pthread_mutex_lock(&u->p->mu);
	note(&u->ch->reading, json_member(said, "read"), json_member(said, "readError"));
	note(&u->ch->writing, json_member(said, "write"), json_member(said, "writeError"));
	known = u->d->state != OPEN;
	pthread_mutex_unlock(&u->p->mu);
	free(c.text);
	if (!known)
		use_fail(u, "internal",
			 "tlsd has ended this connection's data channel and does not say why");
	return known;
}

bool use_can_write(struct use *u)
{
	const char *why = "tls.Shutdown has ended this direction; "
			  "only tls.Read and tls.Close are possible";

	switch (u->ch->writing.state) {
	case OPEN:
		return true;
	case BROKEN_OFF:
		channel_raise(u->p, u->ch, &u->ch->writing);
		return false;
	case CUT_SHORT:
		why = "an earlier Write was cut short, so nothing can follow it; "
		      "only tls.Read and tls.Close are possible";
		break;
	case ENDED_WELL:
		break;
	}
	return fail_held(u->p, "state", u->op, u->handle, "%s", why) == 0;
}
