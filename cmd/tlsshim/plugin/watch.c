/*
 * watch.c - see watch.h.
 *
 * A connection is ready if its data channel has bytes or has ended, or if an error waits to be
 * raised. Before its handshake a tls_Read fails at once, so it is ready then, too. A context is
 * ready if its descriptor says that a client waits.
 *
 * Ready handles take turns in the order of their numbers, so that a busy one does not starve the
 * others. All descriptors are compared with what they were before each look, and the one that is
 * given once more.
 */
#define _POSIX_C_SOURCE 200809L
#include "watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "text.h"

struct watch {
	struct wait wait; /* the first, so that a pointer to it is one to the whole */
	struct process *p;
	struct session *s; /* with a reference; NULL if there is none */
	unsigned began, changes;
	size_t n, cap;
	struct pollfd *fds;    /* of the channels, and room for one more */
	struct channel **list; /* watched, with a reference each */
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

static void look(struct wait *w)
{
	struct watch *all = (struct watch *)w;
	struct process *p = all->p;

	pthread_mutex_lock(&p->mu);
	w->ended = process_cancelled(p, all->began) || p->changes != all->changes ||
		   (all->s && all->s->lost);
	pthread_mutex_unlock(&p->mu);
}

/* Whether a call on the handle would not wait, whatever its descriptor says. mu is held. */
static bool is_ready(const struct channel *ch)
{
	if (ch->context)
		return false;
	if (!ch->fd || ch->unshaken)
		return !ch->shaking;
	return ch->reading.state != OPEN || (ch->writing.state == BROKEN_OFF && !ch->writing.told);
}

/* Makes room for one more. False without memory. */
static bool make_room(struct watch *all)
{
	size_t cap = all->cap ? all->cap * 2 : 16;
	void *fds, *list;

	if (all->n < all->cap)
		return true;
	fds = realloc(all->fds, (cap + 1) * sizeof *all->fds);
	if (fds)
		all->fds = fds;
	list = realloc(all->list, cap * sizeof *all->list);
	if (list)
		all->list = list;
	if (!fds || !list)
		return false;
	all->cap = cap;
	return true;
}

/* Adds a channel. False without memory. mu is held. */
static bool add(struct watch *all, struct channel *ch)
{
	if (!make_room(all))
		return false;
	ch->refs++;
	all->list[all->n] = ch;
	all->fds[all->n++] = (struct pollfd){ .fd = -1, .events = POLLIN };
	return true;
}

/* Takes the session and its watched channels. False and the error set if there can be no wait. */
static bool gather(struct watch *all)
{
	struct process *p = all->p;
	bool ok = true;

	pthread_mutex_lock(&p->mu);
	session_check(p, true);
	all->changes = p->changes;
	all->s = p->session;
	if (!all->s && *p->why_lost) {
		process_set_error(p, kind_of("lost"), "%s: lost: %s", op, p->why_lost);
		ok = false;
	}
	if (all->s)
		all->s->refs++;
	for (int i = 0; all->s && ok && i < CHANNEL_BUCKETS; i++)
		for (struct channel *ch = all->s->channels.buckets[i]; ch && ok; ch = ch->next)
			ok = !ch->watched || ch->closing || add(all, ch);
	if (all->s && !ok)
		process_set_error(p, kind_of("limit"), "%s: out of memory", op);
	pthread_mutex_unlock(&p->mu);
	return ok;
}

/* Gives all of that back. */
static void scatter(struct watch *all)
{
	pthread_mutex_lock(&all->p->mu);
	while (all->n > 0)
		channel_release(all->list[--all->n]);
	if (all->s)
		session_release(all->p, all->s);
	else
		pthread_mutex_unlock(&all->p->mu);
	all->s = NULL;
}

/* Ends the session, because a descriptor is no longer what it was. Returns -1. */
static int64_t fail_replaced(struct watch *all)
{
	pthread_mutex_lock(&all->p->mu);
	session_lose(all->p, all->s, WIRE_REPLACED);
	process_set_error(all->p, kind_of("lost"), "%s: lost: %s", op, all->s->why);
	pthread_mutex_unlock(&all->p->mu);
	return -1;
}

/* The ready handle whose turn it is, 0 for none, or -1. */
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

/* Fills in the numbers of the descriptors. False if one is no longer what it was. */
static bool are_ours(struct watch *all)
{
	for (size_t i = 0; i < all->n; i++) {
		struct channel *ch = all->list[i];

		all->fds[i].fd = ch->fd ? owned_fd(ch->fd) : -1;
		if (ch->fd && all->fds[i].fd < 0)
			return false;
	}
	return true;
}

/* Why a wait has ended early: -1, or 0 if it has to begin again. */
static int64_t conclude(struct watch *all)
{
	if (process_cancelled(all->p, all->began))
		return process_fail(all->p, "cancelled", "%s: cancelled by the caller", op);
	if (all->s && all->s->lost)
		return process_fail(all->p, "lost", "%s: lost: %s", op, all->s->why);
	return 0;
}

/* One look at all that is watched now, and one sleep. Sets *again if that was not all. */
static int64_t look_once(struct watch *all, bool *again)
{
	int64_t handle;

	*again = false;
	if (!gather(all))
		return -1;
	if (!are_ours(all))
		return fail_replaced(all);
	if (all->n > 0 && poll(all->fds, (nfds_t)all->n, 0) < 0)
		for (size_t i = 0; i < all->n; i++)
			all->fds[i].revents = 0; /* the sleep says why */
	handle = choose(all);
	if (handle)
		return handle;
	all->wait.ended = false;
	switch (wait_for_any(all->fds, all->n, &all->wait)) {
	case READY:
		handle = choose(all);
		*again = handle == 0;
		return handle;
	case LATE:
		return 0;
	case ENDED:
		handle = conclude(all);
		*again = handle == 0;
		return handle;
	case FAILED:
		break;
	}
	return process_fail(all->p, "limit", "%s: poll: %s", op, errno_text(errno));
}

int64_t watch_wait(struct process *p, int32_t milliseconds)
{
	struct watch all = { .p = p };
	int64_t result;
	bool again;

	if (!p || !make_room(&all)) /* for the bell */
		return process_fail(p, "limit", "%s: out of memory", op);
	all.wait = (struct wait){ .bell = &p->bell, .look = look };
	if (milliseconds >= 0)
		all.wait.deadline = now_ms() + milliseconds;
	all.began = atomic_load(&p->cancels);
	pthread_mutex_lock(&p->mu);
	p->waits++;
	pthread_mutex_unlock(&p->mu);
	do {
		result = look_once(&all, &again);
		scatter(&all);
	} while (again);
	pthread_mutex_lock(&p->mu);
	p->waits--;
	pthread_mutex_unlock(&p->mu);
	free(all.fds);
	free(all.list);
	return result;
}
