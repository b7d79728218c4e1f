#define _POSIX_C_SOURCE 200809L
#include "opening.h"

#include <inttypes.h>

#include "find.h"
#include "text.h"

enum { LAST_LINE_WAIT_MS = 1000 /* the longest wait for the rest of a line */ };

struct opening {
	/* Must be first, because look_from_search() casts the address of wait to the address of the
	 * struct. */
	struct wait wait;
	struct process *p;
	unsigned began; /* p->cancels when the call began */
};

static void look_from_search(struct wait *w)
{
	struct opening *o = (struct opening *)w;
	struct process *p = o->p;

	if (!process_cancelled(p, o->began))
		return;
	w->ended = true;
	pthread_mutex_lock(&p->mu);
	turn_wake_all(&p->setting);
	turn_wake_all(&p->opening);
	pthread_mutex_unlock(&p->mu);
}

/* The caller must have the turn p->opening, and must not hold mu. Finds a tlsd, and opens a
 * session, which becomes the process's session. Returns the session; the caller gets a reference to
 * it. Returns NULL if the search was cancelled or has failed. After a failure, p->why_not_found
 * says why. */
static struct session *find_session(struct process *p, const struct call *c)
{
	struct opening o = { .wait = { .bell = &p->bell, .look = look_from_search }, .p = p,
			     .began = c->began };
	struct search f = { .wait = &o.wait };
	char why[WHY_BYTES] = "";
	struct owned *sock = find_tlsd(&f);
	struct session *s = sock ? session_make(p, sock) : NULL;

	if (s && session_greet(s, &o.wait, why)) {
		pthread_mutex_lock(&p->mu);
		p->session = s;
		s->refs++;
		pthread_mutex_unlock(&p->mu);
		return s;
	}
	pthread_mutex_lock(&p->mu);
	if (!o.wait.ended) {
		p->searches++;
		p->why_not_found[0] = '\0';
		if (sock)
			text_add(p->why_not_found, sizeof p->why_not_found, "%s: %s", f.path,
				 s ? why : "out of memory");
		else
			text_add(p->why_not_found, sizeof p->why_not_found, "no tlsd: %s", f.tried);
	}
	pthread_mutex_unlock(&p->mu);
	session_drop(p, s);
	return NULL;
}

/* Returns the process's session; the caller gets a reference to it. Returns NULL if the process has
 * no session that can be used. mu must be held. */
static struct session *current(struct process *p)
{
	struct session *s;

	session_check(p, true);
	s = p->session;
	if (!s)
		return NULL;
	s->refs++;
	/* While no call waits, any input (a line, or the end) means that tlsd has ended the
	 * session. So read the input first: if there is any, session_lead marks the session as
	 * lost. */
	while (!s->lost && !s->calls && !s->has_leader && wire_has_input(&s->wire))
		session_lead(p, s, now_ms() + LAST_LINE_WAIT_MS);
	session_wake_leader(s);
	if (!s->lost)
		return s;
	session_release(p, s); /* gives mu up */
	pthread_mutex_lock(&p->mu);
	return NULL;
}

struct session *session_open(struct process *p, const struct call *c)
{
	char why[ERROR_BYTES] = "";
	struct session *s = NULL;
	unsigned searches;
	bool mine;

	pthread_mutex_lock(&p->mu);
	searches = p->searches;
	mine = turn_take(p, &p->opening, c->began);
	if (mine)
		s = current(p);
	/* A search that failed while we waited counts for us, too. */
	if (mine && !s && searches == p->searches) {
		pthread_mutex_unlock(&p->mu);
		s = find_session(p, c);
		pthread_mutex_lock(&p->mu);
	}
	if (mine)
		turn_give_back(&p->opening);
	if (searches != p->searches)
		text_add(why, sizeof why, "%s", p->why_not_found);
	pthread_mutex_unlock(&p->mu);
	if (!s && *why)
		fail(c->method->flags & QUIET ? NULL : p, "backend", c->method->name, 0,
		     "backend: %s", why);
	else if (!s)
		session_cancelled(p, c);
	return s;
}
