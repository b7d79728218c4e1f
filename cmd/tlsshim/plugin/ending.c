/*
 * ending.c - the ends of connections and contexts.
 *
 * After a tls_Shutdown or a tls_Close no Write is possible. A tls_Close ends the calls of other
 * threads on the handle.
 */
#define _POSIX_C_SOURCE 200809L
#include "connection.h"

#include <sys/socket.h>

#include "use.h"
#include "watch.h"

static const struct method
	shutdown_ = { .name = "tls.Shutdown", .waits_on = CONNECTION },
	close_ = { .name = "tls.Close", .closes = CONNECTION },
	close_context = { .name = "tls.CloseServerContext", .closes = CONTEXT };

/* Ends the writing direction of a connection that has a channel, so that no Write comes after
 * tls.Shutdown. Returns 1 if tlsd must now get the call tls.Shutdown. Otherwise returns the
 * result of tls_Shutdown, 0 or -1. */
static int begin_shutdown(struct use *u)
{
	int result = -1;

	if (!use_take_turn(u, &u->ch->writing))
		return -1;
	if (u->ch->writing.state == ENDED_WELL) {
		result = 0;
	} else if (use_can_write(u)) {
		u->ch->writing.state = ENDED_WELL;
		result = 1;
	}
	use_give_turn_back(u);
	return result;
}

int64_t connection_shutdown(struct process *p, struct call *c)
{
	struct use u;
	int result;

	if (!use_begin(&u, p, shutdown_.name, c->handle))
		return -1;
	*c = use_call(&u, &shutdown_);
	if (!use_has_data(&u)) {
		result = client_run(p, c);
	} else if ((result = begin_shutdown(&u)) > 0) {
		result = client_run(p, c);
		pthread_mutex_lock(&p->mu);
		if (result < 0 && u.ch->writing.state == ENDED_WELL)
			u.ch->writing.state = OPEN; /* tlsd decides whether later Writes succeed */
		pthread_mutex_unlock(&p->mu);
	}
	use_end(&u);
	return result;
}

/* Ends the calls of other threads on the channel. If a Write was cut short, shuts both directions
 * of the channel down. tlsd then meets the end of the channel before the Close, and sends no
 * close_notify. */
static void begin_close(struct use *u)
{
	struct channel *ch = u->ch;
	bool cut;
	int fd;

	pthread_mutex_lock(&u->p->mu);
	ch->closing = true;
	turn_wake_all(&ch->reading.turn);
	if (ch->refs > 2) /* more than the table's reference and ours: another thread waits */
		bell_ring(&u->p->bell);
	/* Waits for a Write that is going on. */
	if (turn_take(u->p, &ch->writing.turn, u->began))
		turn_give_back(&ch->writing.turn);
	cut = ch->writing.state == CUT_SHORT;
	pthread_mutex_unlock(&u->p->mu);
	fd = cut ? owned_fd(ch->fd) : -1;
	if (fd >= 0)
		shutdown(fd, SHUT_RDWR);
}

/* Forgets the channel. Returns the result of the Close. */
static int end_close(struct use *u, int result)
{
	pthread_mutex_lock(&u->p->mu);
	if (result == 0 && channel_raise_unreported(u->p, u->ch))
		result = -1;
	u->ch->closing = true; /* not set yet if begin_close was left out */
	channel_drop(&u->s->channels, u->ch);
	pthread_mutex_unlock(&u->p->mu);
	return result;
}

static int close_handle(struct process *p, const struct method *m, struct call *c)
{
	bool ready;
	struct use u;
	int result;

	if (!use_begin(&u, p, m->name, c->handle))
		return -1;
	*c = use_call(&u, m);
	ready = use_has_data(&u) && m->closes == CONNECTION;
	if (ready)
		begin_close(&u);
	/* tls_Close closes only connections, and tls_CloseServerContext only contexts. If the
	 * handle is of the other sort, tlsd refuses the call, and the handle stays watched. */
	if (u.ch && u.ch->context == (m->closes == CONTEXT))
		watch_set(p, u.ch, false);
	result = client_run(p, c);
	if (ready || (u.ch && result == 0))
		result = end_close(&u, result);
	use_end(&u);
	return result;
}

int64_t connection_close(struct process *p, struct call *c)
{
	return close_handle(p, &close_, c);
}

int64_t connection_close_context(struct process *p, struct call *c)
{
	return close_handle(p, &close_context, c);
}
