#define _POSIX_C_SOURCE 200809L
#include "client.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "opening.h"
#include "params.h"
#include "text.h"

/* The calls that change the process's settings, in the order in which a new session gets them. */
static const struct method setters[SETTINGS_KEPT] = {
	{ .name = "tls.SetCaBundle", .texts = { { "path", PATH_OR_EMPTY } }, .flags = OPENS },
	{ .name = "tls.SetTimeout", .number = true, .flags = OPENS | NAMES_ZERO },
};

struct session *client_session(struct process *p, const char *op, int64_t handle, bool control,
			       struct channel **ch)
{
	char why[LOST_BYTES + 8] = "";
	struct session *s = NULL;

	pthread_mutex_lock(&p->mu);
	session_check(p, control);
	if (handle >= 1 && handle <= p->inherited)
		text_add(why, sizeof why,
			 "no such handle: it belongs to the process that this one was forked from");
	else if (handle >= 1 && handle < p->first)
		text_add(why, sizeof why, "lost: %s", p->why_lost);
	else if (!p->session)
		text_add(why, sizeof why, "no such handle");
	else
		(s = p->session)->refs++;
	if (s && (*ch = channel_find(&s->channels, handle)))
		(*ch)->refs++;
	pthread_mutex_unlock(&p->mu);
	if (!s)
		fail(p, strncmp(why, "lost: ", 6) == 0 ? "lost" : "handle", op, 0,
		     "handle %" PRId64 ": %s", handle, why);
	return s;
}

/* --- settings --- */

/* The first setting of the process that the session lacks; SETTINGS_KEPT if it has all. mu is
 * held. */
static int missing(const struct process *p, const struct session *s)
{
	int i = 0;

	while (i < SETTINGS_KEPT && s->set[i] == p->set[i])
		i++;
	return i;
}

/* Gives a session the settings of the process that it lacks. */
static int restore_settings(struct process *p, struct session *s, const struct call *c)
{
	struct call set = { .began = c->began };
	int i, result = 0;

	pthread_mutex_lock(&p->mu);
	if (missing(p, s) < SETTINGS_KEPT) {
		if (!turn_take(p, &p->setting, c->began)) {
			pthread_mutex_unlock(&p->mu);
			return session_cancelled(p, c);
		}
		while (result == 0 && (i = missing(p, s)) < SETTINGS_KEPT) {
			pthread_mutex_unlock(&p->mu);
			set.method = &setters[i];
			set.params = atomic_load(&p->settings[i]);
			result = session_call(p, s, &set);
			pthread_mutex_lock(&p->mu);
			if (result == 0)
				s->set[i] = p->set[i];
		}
		turn_give_back(&p->setting);
	}
	pthread_mutex_unlock(&p->mu);
	if (result < 0 && process_cancelled(p, c->began))
		session_cancelled(p, c); /* replaces the error, which names the setter, not c */
	return result;
}

/* Makes the call setters[which]. If it succeeds, its parameters are kept for later sessions. */
static int64_t set(struct process *p, struct call *c, int which)
{
	struct session *s = NULL;
	char *params;
	int result = -1;
	bool mine;

	c->method = &setters[which];
	params = params_make(p, c);
	if (!p || !params) {
		free(params);
		return -1;
	}
	c->params = params;
	c->began = atomic_load(&p->cancels);
	pthread_mutex_lock(&p->mu);
	mine = turn_take(p, &p->setting, c->began);
	pthread_mutex_unlock(&p->mu);
	if (mine)
		s = session_open(p, c);
	else
		session_cancelled(p, c);
	if (s)
		result = session_call(p, s, c);
	if (result == 0)
		params = atomic_exchange(&p->settings[which], params);
	if (mine) {
		pthread_mutex_lock(&p->mu);
		if (result == 0)
			s->set[which] = ++p->set[which];
		turn_give_back(&p->setting);
		pthread_mutex_unlock(&p->mu);
	}
	session_drop(p, s);
	free(params);
	return result;
}

int64_t client_set_ca(struct process *p, struct call *c)
{
	return set(p, c, 0);
}

int64_t client_set_timeout(struct process *p, struct call *c)
{
	return set(p, c, 1);
}

/* --- a call --- */

/* Returns the call's session; the caller gets a reference to it. Returns NULL with the error set if
 * there is no session. If the handle's channel has an error of writing that the host does not know,
 * sets this error, and returns NULL, too. */
static struct session *session_for(struct process *p, struct call *c)
{
	struct channel *ch;
	struct session *s;
	bool failed;

	if (c->method->flags & OPENS)
		return session_open(p, c);
	s = client_session(p, call_op(c), c->handle, true, &ch);
	if (!s)
		return NULL;
	pthread_mutex_lock(&p->mu);
	failed = !c->is_part && channel_raise_unreported(p, ch);
	channel_release(ch);
	pthread_mutex_unlock(&p->mu);
	if (!failed)
		return s;
	session_drop(p, s);
	return NULL;
}

int client_run(struct process *p, struct call *c)
{
	char *params = params_make(p, c);
	struct session *s = NULL;
	int result = -1;

	c->params = params;
	if (p && params) {
		if (!c->is_part)
			c->began = atomic_load(&p->cancels);
		s = session_for(p, c);
	}
	if (s && (!(c->method->flags & SETTINGS) || restore_settings(p, s, c) == 0))
		result = session_call(p, s, c);
	session_drop(p, s);
	owned_close(c->pass);
	c->pass = NULL;
	c->params = NULL;
	free(params);
	return result;
}

void client_end(struct process *p)
{
	struct session *s;

	pthread_mutex_lock(&p->mu);
	s = p->session;
	p->session = NULL;
	pthread_mutex_unlock(&p->mu);
	session_drop(p, s);
}
