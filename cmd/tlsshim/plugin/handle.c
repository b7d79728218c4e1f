/*
 * handle.c - the timeouts and options that the plugin itself must know, and the descriptor of a
 * context.
 */
#define _POSIX_C_SOURCE 200809L
#include "connection.h"

#include <stdlib.h>
#include <string.h>

#include "use.h"
#include "watch.h"

static const struct method
	new_server_context = { .name = "tls.NewServerContext",
			       .texts = { { "certFile", PATH }, { "keyFile", PATH } },
			       .result = NUMBER, .flags = OPENS | MAKES_HANDLE },
	set_timeout = { .name = "tls.SetTimeout", .number = true },
	set_option = { .name = "tls.SetOption",
		       .texts = { { "name", PLAIN }, { "value", OPTION_VALUE } } },
	signal_ = { .name = "tls.Signal" },
	status = { .name = "tls.Status", .result = OBJECT };

int64_t connection_set_timeout(struct process *p, struct call *c)
{
	struct channel *ch;

	if (c->handle == 0)
		return client_set_timeout(p, c);
	c->method = &set_timeout;
	if (client_run(p, c) < 0)
		return -1;
	pthread_mutex_lock(&p->mu);
	ch = session_handle(p, c->handle, true);
	if (ch)
		ch->timeout = c->n;
	pthread_mutex_unlock(&p->mu);
	return 0;
}

int64_t connection_new_context(struct process *p, struct call *c)
{
	struct channel *ch;

	c->method = &new_server_context;
	if (client_run(p, c) < 0)
		return -1;
	pthread_mutex_lock(&p->mu);
	ch = session_handle(p, c->number, true);
	if (ch)
		ch->context = true;
	pthread_mutex_unlock(&p->mu);
	return c->number;
}

/* Gives a context its descriptor, unless the context has one: makes a pair, and sends both ends to
 * tlsd. The first end also stays open here, and is the descriptor. While a thread does this, it has
 * the turn to read. Returns false with the error set if it fails. */
static bool make_signal(struct use *u)
{
	struct call c = use_call(u, &signal_);
	struct owned *ends[2];
	bool has, gone = false;

	if (!use_take_turn(u, &u->ch->reading))
		return false;
	has = u->ch->fd != NULL;
	pthread_mutex_unlock(&u->p->mu);
	if (!has && connection_make_pair(u->p, &c, ends, "context")) {
		c.pass_first = ends[0];
		has = client_run(u->p, &c) == 0;
		pthread_mutex_lock(&u->p->mu);
		gone = u->ch->closing || u->s->lost; /* closed or lost while mu was not held */
		if (has && !gone) {
			u->ch->fd = ends[0];
			ends[0] = NULL;
			watch_changed(u->p, u->ch);
		}
		pthread_mutex_unlock(&u->p->mu);
		owned_close(ends[0]);
	}
	pthread_mutex_lock(&u->p->mu);
	use_give_turn_back(u);
	if (has && gone)
		use_fail_ended(u);
	return has && !gone;
}

/* Sets the error of a handle that has no descriptor. Only tlsd knows whether the handle exists. */
static void fail_without_descriptor(struct use *u)
{
	struct call c = use_call(u, &status);
	const char *kind = "state";

	if (client_run(u->p, &c) < 0)
		kind = error_kind(u->p).name;
	free(c.text);
	if (strcmp(kind, "handle") == 0)
		use_fail(u, kind, "no such connection or context");
	else if (strcmp(kind, "state") == 0)
		use_fail(u, kind, "the connection has no descriptor before its handshake");
}

int64_t connection_descriptor(struct process *p, struct call *c)
{
	struct use u;
	bool failed;
	int fd = -1;

	if (!use_begin(&u, p, "tls.Descriptor", c->handle))
		return -1;
	pthread_mutex_lock(&p->mu);
	failed = channel_raise_unreported(p, u.ch);
	pthread_mutex_unlock(&p->mu);
	if (!failed && (use_has_data(&u) || (u.ch && u.ch->context && make_signal(&u))))
		fd = use_fd(&u);
	else if (!failed && (!u.ch || !u.ch->context))
		fail_without_descriptor(&u);
	use_end(&u);
	return fd;
}

/* Sets whether a handle takes part in tls_Wait. A context needs its descriptor for that. */
static int watch_handle(struct process *p, int64_t handle, bool on)
{
	struct use u;
	bool good;

	if (!use_begin(&u, p, set_option.name, handle))
		return 0; /* the session is lost, and the next call reports that */
	good = u.ch || use_fail(&u, "limit", "out of memory") == 0;
	if (good && on && u.ch->context)
		good = make_signal(&u);
	if (good)
		watch_set(p, u.ch, on);
	use_end(&u);
	return good ? 0 : -1;
}

int64_t connection_set_option(struct process *p, struct call *c)
{
	struct channel *ch;
	bool is_watch;

	c->method = &set_option;
	if (client_run(p, c) < 0)
		return -1;
	is_watch = strcmp(c->texts[0], "watch") == 0;
	if (!is_watch && strcmp(c->texts[0], "handshake") != 0)
		return 0;
	pthread_mutex_lock(&p->mu);
	ch = session_handle(p, c->handle, true);
	if (ch && !is_watch)
		ch->handshake_later = strcmp(c->texts[1], "later") == 0;
	pthread_mutex_unlock(&p->mu);
	return is_watch ? watch_handle(p, c->handle, strcmp(c->texts[1], "1") == 0) : 0;
}
