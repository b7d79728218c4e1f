#define _POSIX_C_SOURCE 200809L
#include "client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "text.h"

static const struct method set_ca_bundle = { .name = "tls.SetCaBundle", .flags = OPENS },
	set_timeout = { .name = "tls.SetTimeout", .flags = OPENS };

/* The parameters of a call: its handle, its texts, its number, and 1 for a descriptor that goes
 * along; to be freed. NULL without memory. */
static char *make_params(const struct call *c)
{
	struct json_out out = { 0 };
	const char *comma = "";

	json_put(&out, "[");
	if (!(c->method->flags & OPENS)) {
		json_put_int(&out, c->handle);
		comma = ",";
	}
	for (size_t i = 0; i < sizeof c->texts / sizeof *c->texts && c->texts[i]; i++) {
		json_put(&out, comma);
		json_put_string(&out, c->texts[i]);
		comma = ",";
	}
	if (c->n) {
		json_put(&out, comma);
		json_put_int(&out, *c->n);
	}
	json_put(&out, c->pass ? ",1]" : "]"); /* the parameter channel comes last */
	if (!out.failed)
		return out.at;
	free(out.at);
	return NULL;
}

/* --- which session --- */

enum { MOST_TRIES = 3 }; /* in a program that forks again and again */

struct search {
	struct wait wait; /* the first, so that a pointer to it is one to the whole */
	struct process *p;
	unsigned began;
};

static void look_from_search(struct wait *w)
{
	struct search *find = (struct search *)w;
	struct process *p = find->p;

	if (!process_cancelled(p, find->began))
		return;
	w->ended = true;
	pthread_mutex_lock(&p->mu);
	turn_stir(&p->trusting);
	turn_stir(&p->opening);
	pthread_mutex_unlock(&p->mu);
}

static void drop(struct process *p, struct session *s)
{
	wire_end(&s->wire);
	pthread_mutex_lock(&p->mu);
	session_release(p, s);
}

/* Finds a tlsd and makes a session the process's, with a reference. NULL if that is cancelled
 * or has failed, which is noted. The call has the turn to open one, and mu is not held. */
static struct session *find_session(struct process *p, const struct call *c)
{
	char path[SOCKET_PATH_BYTES] = "", tried[TRIED_BYTES] = "", why[WHY_BYTES] = "";
	struct search find = { .wait = { .bell = &p->bell, .look = look_from_search }, .p = p,
			       .began = c->began };
	struct session *s = NULL;
	int fd, tries = 0;
	unsigned forks;

	do {
		if (s) /* a child has a copy of the socket: this session could not end before it */
			drop(p, s);
		path[0] = tried[0] = '\0';
		forks = owned_forks();
		fd = find_tlsd(path, tried, &find.wait);
		s = fd >= 0 ? session_make(p, fd) : NULL;
	} while (s && forks != owned_forks() && ++tries < MOST_TRIES);
	if (fd >= 0 && !s)
		text_add(why, sizeof why, "%s", errno_text(errno));
	if (s && session_greet(s, &find.wait, why)) {
		pthread_mutex_lock(&p->mu);
		p->session = s;
		s->refs++;
		pthread_mutex_unlock(&p->mu);
		return s;
	}
	pthread_mutex_lock(&p->mu);
	if (!find.wait.ended) {
		p->searches++;
		p->found_not[0] = '\0';
		if (fd < 0)
			text_add(p->found_not, sizeof p->found_not, "no tlsd: %s", tried);
		else
			text_add(p->found_not, sizeof p->found_not, "%s: %s", path, why);
	}
	if (s)
		session_release(p, s);
	else
		pthread_mutex_unlock(&p->mu);
	return NULL;
}

/* A session for a call that needs no handle, with a reference; or NULL and the error set. */
static struct session *open_session(struct process *p, const struct call *c)
{
	char why[ERROR_BYTES] = "";
	struct session *s = NULL;
	unsigned searches;
	bool mine;

	pthread_mutex_lock(&p->mu);
	searches = p->searches;
	mine = turn_take(p, &p->opening, c->began);
	if (mine)
		s = session_current(p);
	/* A search that failed while we waited counts for us, too. */
	if (mine && !s && searches == p->searches) {
		pthread_mutex_unlock(&p->mu);
		s = find_session(p, c);
		pthread_mutex_lock(&p->mu);
	}
	if (mine)
		turn_give_back(&p->opening);
	if (searches != p->searches)
		text_add(why, sizeof why, "%s", p->found_not);
	pthread_mutex_unlock(&p->mu);
	if (!s && *why)
		process_fail(c->method->flags & QUIET ? NULL : p, "backend",
			     "%s: backend: %s", c->method->name, why);
	else if (!s)
		session_cancelled(p, c);
	return s;
}

struct session *client_session(struct process *p, const char *op, int64_t handle,
			       struct channel **ch)
{
	char why[LOST_BYTES + 8] = "";
	struct session *s = NULL;

	pthread_mutex_lock(&p->mu);
	session_check(p, ch == NULL);
	if (handle >= 1 && handle <= p->inherited)
		text_add(why, sizeof why,
			 "no such handle: it belongs to the process that this one was forked from");
	else if (handle >= 1 && handle < p->first)
		text_add(why, sizeof why, "lost: %s", p->why_lost);
	else if (!p->session)
		text_add(why, sizeof why, "no such handle");
	else
		(s = p->session)->refs++;
	if (s && ch)
		*ch = channel_find(&s->channels, handle);
	pthread_mutex_unlock(&p->mu);
	if (!s)
		process_fail(p, strncmp(why, "lost: ", 6) == 0 ? "lost" : "handle",
			     "%s: handle %" PRId64 ": %s", op, handle, why);
	return s;
}

/* --- the CA bundle --- */

/* Tells the session of a CA bundle. trusting is taken. */
static int send_ca(struct process *p, struct session *s, const char *path, unsigned began)
{
	struct call c = { .method = &set_ca_bundle, .began = began, .texts = { path } };
	char *params = make_params(&c);
	int result;

	if (!params)
		return (int)process_fail(p, "limit", "%s: out of memory", set_ca_bundle.name);
	c.params = params;
	result = session_call(p, s, &c);
	free(params);
	return result;
}

/* Gives a new session the CA bundle that the host has set in an earlier one. */
static int restore_ca(struct process *p, struct session *s, const struct call *c)
{
	bool mine, missing;
	int result = 0;

	pthread_mutex_lock(&p->mu);
	missing = s->ca_version != p->ca_version;
	mine = missing && turn_take(p, &p->trusting, c->began);
	missing = s->ca_version != p->ca_version; /* somebody may have done it meanwhile */
	pthread_mutex_unlock(&p->mu);
	if (missing && !mine)
		return session_cancelled(p, c);
	if (missing)
		result = send_ca(p, s, atomic_load(&p->ca_bundle), c->began);
	if (mine) {
		pthread_mutex_lock(&p->mu);
		if (missing && result == 0)
			s->ca_version = p->ca_version;
		turn_give_back(&p->trusting);
		pthread_mutex_unlock(&p->mu);
	}
	return result;
}

int client_trust(struct process *p, const char *path)
{
	struct call c = { .method = &set_ca_bundle };
	char *copy = strdup(path);
	struct session *s = NULL;
	int result = -1;
	bool mine;

	if (!p || !copy) {
		free(copy);
		return (int)process_fail(p, "limit", "%s: out of memory", set_ca_bundle.name);
	}
	c.began = atomic_load(&p->cancels);
	pthread_mutex_lock(&p->mu);
	mine = turn_take(p, &p->trusting, c.began);
	pthread_mutex_unlock(&p->mu);
	if (mine)
		s = open_session(p, &c);
	else
		session_cancelled(p, &c);
	if (s)
		result = send_ca(p, s, path, c.began);
	if (result == 0)
		copy = atomic_exchange(&p->ca_bundle, copy);
	if (mine) {
		pthread_mutex_lock(&p->mu);
		if (result == 0)
			s->ca_version = ++p->ca_version;
		turn_give_back(&p->trusting);
		pthread_mutex_unlock(&p->mu);
	}
	if (s) {
		pthread_mutex_lock(&p->mu);
		session_release(p, s);
	}
	free(copy);
	return result;
}

/* --- the bound of tls_NewClient --- */

/* Room for "[0,", a number and "]". */
enum { BOUND_BYTES = 32 };

static struct call bound_call(char params[BOUND_BYTES], int32_t milliseconds)
{
	snprintf(params, BOUND_BYTES, "[0,%" PRId32 "]", milliseconds);
	return (struct call){ .method = &set_timeout, .params = params };
}

/* Gives a new session the bound that the host has set in an earlier one. Two threads may do it
 * at the same time. */
static int restore_bound(struct process *p, struct session *s, const struct call *c)
{
	char params[BOUND_BYTES];
	int32_t bound = atomic_load(&p->connect_timeout);
	struct call set = bound_call(params, bound);
	bool holds;

	pthread_mutex_lock(&p->mu);
	holds = s->connect_timeout == bound;
	pthread_mutex_unlock(&p->mu);
	if (holds)
		return 0;
	set.began = c->began;
	if (session_call(p, s, &set) < 0)
		return -1;
	pthread_mutex_lock(&p->mu);
	s->connect_timeout = bound;
	pthread_mutex_unlock(&p->mu);
	return 0;
}

int client_bound(struct process *p, int32_t milliseconds)
{
	char params[BOUND_BYTES];
	struct call c = bound_call(params, milliseconds);

	if (client_call(p, &c) < 0)
		return -1;
	/* Which session has got it is not known here: the next tls_NewClient tells its session. */
	atomic_store(&p->connect_timeout, milliseconds);
	return 0;
}

/* --- a call --- */

static int call_on(struct process *p, struct session *s, struct call *c)
{
	int result = 0;

	if (c->method->flags & TRUSTS)
		result = restore_ca(p, s, c);
	if (result == 0 && c->method->flags & TRUSTS)
		result = restore_bound(p, s, c);
	if (result == 0)
		return session_call(p, s, c);
	if (process_cancelled(p, c->began))
		session_cancelled(p, c);
	return result;
}

int client_call(struct process *p, struct call *c)
{
	struct session *s = NULL;
	int result = -1;

	if (p) {
		if (!c->is_part)
			c->began = atomic_load(&p->cancels);
		if (c->method->flags & OPENS)
			s = open_session(p, c);
		else
			s = client_session(p, c->op ? c->op : c->method->name, c->handle, NULL);
	}
	if (s) {
		result = call_on(p, s, c);
		pthread_mutex_lock(&p->mu);
		session_release(p, s);
	}
	owned_close(c->pass);
	c->pass = NULL;
	return result;
}

int client_run(struct process *p, struct call *c)
{
	char *params = make_params(c);
	int result = -1;

	c->params = params;
	if (!params)
		process_fail(p, "limit", "%s: out of memory", c->method->name);
	else
		result = client_call(p, c);
	owned_close(c->pass); /* NULL unless memory ran out */
	free(params);
	return result;
}

void client_end(struct process *p)
{
	struct session *s;

	pthread_mutex_lock(&p->mu);
	s = p->session;
	p->session = NULL;
	if (s)
		session_release(p, s);
	else
		pthread_mutex_unlock(&p->mu);
}
