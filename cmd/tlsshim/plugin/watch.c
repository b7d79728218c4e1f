/*
 * watch.c - see watch.h.
 *
 * A connection is ready if its data channel has bytes or has ended, or if the host does not know
 * yet of an error of writing. A connection whose handshake has not begun is ready, too, because a
 * tls_Read on it fails at once. A context is ready if its descriptor is readable: a client waits.
 *
 * Ready handles take turns in the order of their numbers, so that a busy handle does not starve the
 * others. Before each look the plugin checks that the host has not replaced a descriptor. Before it
 * returns a handle, it checks the handle's descriptor again.
 */
#define _POSIX_C_SOURCE 200809L
#include "watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "text.h"

struct watch {
	/* Must be first, because look() casts the address of wait to the address of the struct. */
	struct wait wait;
	struct process *p;
	struct session *s; /* collect() has taken a reference to it; NULL: there is no session */
	unsigned began, changes; /* p->cancels at the beginning; p->changes in collect() */
	bool collected;
	size_t n;
	struct pollfd *fds;    /* for the channels' descriptors, and one more for the bell */
	struct channel **list; /* the watched channels, a reference to each */
};

static const char op[] = "tls.Wait";

void watch_changed(struct process *p, const struct channel *ch)
{
	if (!ch->watched)
		return;
	p->changes++;
	if (p->waits > 0)
		bell_ring(&p->bell);
}

void watch_set(struct process *p, struct channel *ch, bool on)
{
	pthread_mutex_lock(&p->mu);
	ch->watched = ch->watched || on;
	watch_changed(p, ch);
	ch->watched = on;
	pthread_mutex_unlock(&p->mu);
}

static void look(struct wait *w)
{
	struct watch *all = (struct watch *)w;
	struct process *p = all->p;

	pthread_mutex_lock(&p->mu);
	w->ended = process_cancelled(p, all->began) || p->changes != all->changes ||
		   (all->s && all->s->lost);
	pthread_mutex_unlock(&p->mu);
}

/* Says whether the handle is ready for a reason that poll does not show: a tls_Read on it returns
 * or fails at once, even if its descriptor is not readable. mu is held. */
static bool is_ready(const struct channel *ch)
{
	if (ch->context)
		return false;
	if (!ch->fd)
		return !ch->handshaking;
	return ch->reading.state != OPEN ||
	       (ch->writing.state == BROKEN_OFF && !ch->writing.reported);
}

/* Counts the session's watched channels. If list is not NULL, the function also puts the channels
 * into it, and adds a reference to each. s may be NULL. mu is held. */
static size_t watched(const struct session *s, struct channel **list)
{
	size_t n = 0;

	for (int i = 0; s && i < CHANNEL_BUCKETS; i++)
		for (struct channel *ch = s->channels.buckets[i]; ch; ch = ch->next) {
			if (!ch->watched || ch->closing)
				continue;
			if (list) {
				list[n] = ch;
				ch->refs++;
			}
			n++;
		}
	return n;
}

/* Takes a reference to the session, and to each watched channel. Returns false with the error set
 * if the session is lost, or there is no memory. */
static bool collect(struct watch *all)
{
	struct process *p = all->p;
	size_t n;

	pthread_mutex_lock(&p->mu);
	session_check(p, true);
	all->changes = p->changes;
	all->s = p->session;
	if (all->s)
		all->s->refs++;
	n = watched(all->s, NULL);
	all->fds = calloc(n + 1, sizeof *all->fds);
	all->list = calloc(n + 1, sizeof *all->list);
	if (!all->s && *p->why_lost)
		fail_held(p, "lost", op, 0, "lost: %s", p->why_lost);
	else if (!all->fds || !all->list)
		fail_held(p, "limit", op, 0, "out of memory");
	else
		all->collected = true;
	all->n = all->collected ? watched(all->s, all->list) : 0;
	pthread_mutex_unlock(&p->mu);
	return all->collected;
}

/* Gives back the references that collect() has taken. */
static void release(struct watch *all)
{
	pthread_mutex_lock(&all->p->mu);
	while (all->n > 0)
		channel_release(all->list[--all->n]);
	if (all->s)
		session_release(all->p, all->s);
	else
		pthread_mutex_unlock(&all->p->mu);
	free(all->fds);
	free(all->list);
	all->s = NULL;
	all->fds = NULL;
	all->list = NULL;
	all->collected = false;
}

/* Ends the session, because the host has replaced a descriptor. Returns -1. */
static int64_t fail_replaced(struct watch *all)
{
	pthread_mutex_lock(&all->p->mu);
	session_lose(all->p, all->s, WIRE_REPLACED);
	fail_held(all->p, "lost", op, 0, "lost: %s", all->s->why);
	pthread_mutex_unlock(&all->p->mu);
	return -1;
}

/* Returns the ready handle whose turn it is, 0 if none is ready, or -1 with the error set. */
static int64_t choose(struct watch *all)
{
	struct channel *first = NULL, *next = NULL, *ch;
	bool replaced = false;
	int64_t last;

	pthread_mutex_lock(&all->p->mu);
	last = all->s ? all->s->waited_for : 0;
	for (size_t i = 0; i < all->n; i++) {
		ch = all->list[i];
		if (!all->fds[i].revents && !is_ready(ch))
			continue;
		if (!first || ch->handle < first->handle)
			first = ch;
		if (ch->handle > last && (!next || ch->handle < next->handle))
			next = ch;
	}
	ch = next ? next : first;
	if (ch) {
		all->s->waited_for = ch->handle;
		replaced = ch->fd && owned_fd(ch->fd) < 0;
	}
	pthread_mutex_unlock(&all->p->mu);
	if (replaced)
		return fail_replaced(all);
	return ch ? ch->handle : 0;
}

/* Fills in the numbers of the descriptors. Returns false if the host has replaced one. */
static bool are_ours(struct watch *all)
{
	for (size_t i = 0; i < all->n; i++) {
		struct channel *ch = all->list[i];

		all->fds[i] = (struct pollfd){ .fd = owned_fd(ch->fd), .events = POLLIN };
		if (ch->fd && all->fds[i].fd < 0)
			return false;
	}
	return true;
}

enum { AGAIN = -2 };

/* Looks at all watched handles. If none is ready, sleeps once and looks again. Returns what
 * watch_wait returns; or AGAIN, and then watch_wait calls look_once again. */
static int64_t look_once(struct watch *all)
{
	int64_t handle;

	if (!collect(all))
		return -1;
	if (!are_ours(all))
		return fail_replaced(all);
	/* If poll(2) fails, no descriptor counts as readable. If is_ready() finds no ready handle
	 * either, wait_for_any polls again, and reports the error. */
	if (all->n > 0 && poll(all->fds, (nfds_t)all->n, 0) < 0)
		for (size_t i = 0; i < all->n; i++)
			all->fds[i].revents = 0;
	handle = choose(all);
	if (handle)
		return handle;
	all->wait.ended = false;
	switch (wait_for_any(all->fds, all->n, &all->wait)) {
	case READY:
		handle = choose(all);
		return handle ? handle : AGAIN;
	case LATE:
		return 0;
	case ENDED:
		if (process_cancelled(all->p, all->began))
			return fail(all->p, "cancelled", op, 0, "cancelled by the caller");
		if (all->s && all->s->lost)
			return fail(all->p, "lost", op, 0, "lost: %s", all->s->why);
		return AGAIN;
	case FAILED:
		break;
	}
	return fail(all->p, "limit", op, 0, "poll: %s", errno_text(errno));
}

/* Counts the threads in tls_Wait. */
static void count(struct process *p, int change)
{
	pthread_mutex_lock(&p->mu);
	p->waits += change;
	pthread_mutex_unlock(&p->mu);
}

int64_t watch_wait(struct process *p, int32_t milliseconds)
{
	struct watch all = { .p = p };
	int64_t result;

	if (!p)
		return -1;
	all.wait = (struct wait){ .bell = &p->bell, .look = look };
	if (milliseconds >= 0)
		all.wait.deadline = now_ms() + milliseconds;
	all.began = atomic_load(&p->cancels);
	count(p, 1);
	do {
		result = look_once(&all);
		release(&all);
	} while (result == AGAIN);
	count(p, -1);
	return result;
}
