/*
 * Several threads wait for answers on one socket, and there is no thread to
 * serve them. So one of those that wait leads: it reads answers, hands the
 * others theirs, and when it has its own, wakes one of the others to lead. A
 * blob is read straight into the buffer of the call that it answers.
 *
 * Sending and reading block, each without mu. That cannot end in a deadlock
 * with a tlsd which has stopped to read because nobody takes its answers: it
 * can only have answers for calls that were sent, the thread of each of these
 * waits, and one of those that wait leads. A sender that waits for room
 * therefore never has to read itself.
 *
 * Only the leader, or somebody who has made sure that nobody leads, ends calls.
 * A sender that fails shuts the socket down and then waits like any other; the
 * leader reads what tlsd had still to say, meets the end, and ends all calls.
 */
#define _GNU_SOURCE
#include "session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "find.h"
#include "json.h"
#include "text.h"

enum {
	HELLO_ID = 1,
	HELLO_WAIT_MS = 10000,
	FAREWELL_WAIT_MS = 1000, /* for the rest of a message that was begun */
};

struct session {
	int fd;
	char path[SOCKET_PATH_BYTES];
	int64_t first;    /* handle that it may give out */
	int64_t hello_by; /* when the answer to Hello must be there */

	/* Guarded by the process's mu. */
	int refs; /* the process's and one for each call */
	struct call *calls;
	int64_t next_id;
	bool led, agreed, lost;
	unsigned ca_version; /* the one of the process that holds here */
	char why[WHY_BYTES]; /* it is lost */

	struct input in; /* the leader's */

	pthread_mutex_t sending; /* the right to send; held while a message goes out */
	bool greeted;            /* guarded by sending */
};

static const struct method set_ca_bundle = { .name = "tls.SetCaBundle", .flags = OPENS };

/* --- the life of a session --- */

static struct session *make(struct process *p, int fd, const char *path)
{
	struct session *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->fd = fd;
	text_add(s->path, sizeof s->path, "%s", path);
	s->first = p->first;
	s->hello_by = now_ms() + HELLO_WAIT_MS;
	s->refs = 1;
	s->next_id = HELLO_ID + 1;
	pthread_mutex_init(&s->sending, NULL);
	return s;
}

static void release(struct process *p, struct session *s)
{
	int fd = s->fd;
	bool last;

	pthread_mutex_lock(&p->mu);
	last = --s->refs == 0;
	pthread_mutex_unlock(&p->mu);
	if (!last)
		return;
	atomic_compare_exchange_strong(&p->socket, &fd, -1);
	close(s->fd);
	free(s->in.at);
	pthread_mutex_destroy(&s->sending);
	free(s);
}

/* Ends the session. mu is held, and the caller has a reference. */
static void lose(struct process *p, struct session *s, const char *why)
{
	if (s->lost)
		return;
	s->lost = true;
	text_add(s->why, sizeof s->why, "%s", why);
	shutdown(s->fd, SHUT_RDWR); /* ends a send that waits */
	for (struct call *c = s->calls; c; c = c->next) {
		if (!c->done || !s->agreed)
			c->done = c->lost = true;
		pthread_cond_signal(&c->woken);
	}
	if (p->session == s) {
		p->session = NULL;
		s->refs--;
		p->first = (int64_t)atomic_load(&p->highest) + 1;
		p->why_lost[0] = '\0';
		text_add(p->why_lost, sizeof p->why_lost, "%s", why);
	}
}

/* --- reading --- */

/* Checks the answer to Hello. */
static bool agree(struct session *s, struct answer *a, char *why)
{
	int64_t version = 0;

	if (a->error.at) {
		char *message = json_text(a->error);
		text_add(why, WHY_BYTES, "%s", message ? message : "out of memory");
		free(message);
		return false;
	}
	if (!json_int(json_member(a->result, "version"), &version) || version != 1) {
		text_add(why, WHY_BYTES, "tlsd does not speak version 1 of the protocol");
		return false;
	}
	if (!json_array_has(json_member(a->result, "capabilities"), "\"raw\"")) {
		text_add(why, WHY_BYTES, "tlsd does not have the capability raw");
		return false;
	}
	s->agreed = true;
	for (struct call *c = s->calls; c; c = c->next)
		pthread_cond_signal(&c->woken);
	return true;
}

/* Takes the result of a call over, if it is what the method gives. Leaves mu
 * while it reads a blob; the call stays where it is, because only the leader,
 * who is here, can end it. */
static bool take_result(struct process *p, struct session *s, struct call *c, struct answer *a, char *why)
{
	bool ok = a->has_raw == (c->method->result == BLOB);

	switch (c->method->result) {
	case NUMBER:
		ok = ok && json_int(a->result, &c->number) && c->number >= 0 && c->number <= INT32_MAX;
		if (ok && c->has_blob)
			ok = (size_t)c->number == c->blob_len;
		if (ok && (c->method->flags & MAKES_HANDLE)) {
			ok = c->number >= s->first;
			if (ok && c->number > atomic_load(&p->highest))
				atomic_store(&p->highest, (int32_t)c->number);
		}
		break;
	case TEXT:
		ok = ok && json_is_string(a->result);
		if (ok)
			c->text = json_text(a->result);
		break;
	case BLOB:
		ok = ok && a->raw <= c->into_cap;
		if (!ok)
			break;
		c->number = (int64_t)a->raw;
		pthread_mutex_unlock(&p->mu);
		ok = wire_raw(s->fd, &s->in, c->into, a->raw, why);
		pthread_mutex_lock(&p->mu);
		return ok;
	}
	if (!ok)
		text_add(why, WHY_BYTES, "tlsd has answered %s with what cannot be its result", c->method->name);
	return ok;
}

static bool deliver(struct process *p, struct session *s, struct answer *a, char *why)
{
	struct call *c = s->calls;

	if (a->id_null) {
		char *message = a->error.at ? json_text(a->error) : NULL;
		const char *text = message ? message : "tlsd has sent an answer to nothing";
		if (strncmp(text, "lost: ", 6) == 0)
			text += 6; /* the host is told that by conclude */
		text_add(why, WHY_BYTES, "%s", text);
		free(message);
		return false;
	}
	if (a->id == HELLO_ID && !s->agreed)
		return agree(s, a, why);
	while (c && (c->id != a->id || c->done))
		c = c->next;
	if (!c) {
		text_add(why, WHY_BYTES, "tlsd has answered a call that is not waiting: id %" PRId64, a->id);
		return false;
	}
	if (a->error.at) {
		c->failed = true;
		c->text = json_text(a->error);
	} else if (!take_result(p, s, c, a, why)) {
		return false;
	}
	c->done = true;
	pthread_cond_signal(&c->woken);
	return true;
}

/* Reads one answer. mu is held before and after, and nobody leads. */
static void lead(struct process *p, struct session *s, int64_t deadline)
{
	char why[WHY_BYTES] = "";
	struct answer a;
	bool ok;

	s->led = true;
	pthread_mutex_unlock(&p->mu);
	ok = wire_read(s->fd, &s->in, deadline, &a, why);
	pthread_mutex_lock(&p->mu);
	if (!ok || !deliver(p, s, &a, why))
		lose(p, s, why);
	s->led = false;
}

/* Wakes a thread that is to lead, if there is one. mu is held. */
static void wake_leader(struct session *s)
{
	struct call *c = s->calls;

	while (c && !c->parked)
		c = c->next;
	if (c && !s->led)
		pthread_cond_signal(&c->woken);
}

/* Waits until the call is done. Before Hello is answered well, no call is. */
static void await(struct process *p, struct session *s, struct call *c)
{
	struct call **link = &s->calls;

	pthread_mutex_lock(&p->mu);
	while (!c->done || !(s->agreed || s->lost)) {
		if (s->led) {
			c->parked = true;
			pthread_cond_wait(&c->woken, &p->mu);
			c->parked = false;
		} else {
			lead(p, s, s->agreed ? 0 : s->hello_by);
		}
	}
	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	wake_leader(s);
	pthread_mutex_unlock(&p->mu);
}

/* --- sending --- */

/* Writes the request, and before it the cancellation of what waits on a handle that it closes. */
static void write_request(struct json_out *out, const struct session *s, const struct call *c)
{
	for (const struct call *w = c->method->closes ? s->calls : NULL; w; w = w->next) {
		if (w->handle != c->handle || w->method->waits_on != c->method->closes)
			continue;
		json_put(out, "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancelRequest\",\"params\":[");
		json_put_int(out, w->id);
		json_put(out, "]}\n");
	}
	json_put(out, "{\"jsonrpc\":\"2.0\",\"id\":");
	json_put_int(out, c->id);
	json_put(out, ",\"method\":\"");
	json_put(out, c->method->name);
	json_put(out, "\",\"params\":");
	json_put(out, c->params);
	if (c->has_blob) {
		json_put(out, ",\"raw\":");
		json_put_int(out, (int64_t)c->blob_len);
	}
	json_put(out, "}\n");
}

static void send_request(struct session *s, const struct json_out *line, const struct call *c)
{
	char hello[160] = "";
	struct iovec parts[3] = {
		{ .iov_base = hello },
		{ .iov_base = line->at, .iov_len = line->len },
		{ .iov_base = (void *)(uintptr_t)c->blob, .iov_len = c->has_blob ? c->blob_len : 0 },
	};

	pthread_mutex_lock(&s->sending);
	if (!s->greeted) {
		text_add(hello, sizeof hello,
			 "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"tls.Hello\",\"params\":"
			 "{\"version\":1,\"capabilities\":[\"raw\"],\"firstHandle\":%" PRId64 "}}\n",
			 HELLO_ID, s->first);
		parts[0].iov_len = strlen(hello);
		s->greeted = true;
	}
	if (!wire_send(s->fd, parts, 3))
		shutdown(s->fd, SHUT_RDWR);
	pthread_mutex_unlock(&s->sending);
}

/* --- calls --- */

/* The host's view of how the call has ended. */
static int conclude(struct process *p, const struct session *s, struct call *c)
{
	struct process *to = c->method->flags & QUIET ? NULL : p;
	const char *op = c->method->name;
	char *message = c->text;

	if (!c->lost && !c->failed && (c->method->result != TEXT || c->text))
		return 0;
	c->text = NULL;
	if (c->lost && !s->agreed)
		process_fail(to, "%s: backend: %s: %s", op, s->path, s->why);
	else if (c->lost && c->handle)
		process_fail(to, "%s: handle %" PRId64 ": lost: %s", op, c->handle, s->why);
	else if (c->lost)
		process_fail(to, "%s: lost: %s", op, s->why);
	else if (message)
		process_fail(to, "%s", message);
	else
		process_fail(to, "%s: out of memory", op);
	free(message);
	return -1;
}

/* Makes the call on a session that the caller has a reference of. */
static int call_on(struct process *p, struct session *s, struct call *c)
{
	struct json_out line = { 0 };

	pthread_mutex_lock(&p->mu);
	c->id = s->next_id++;
	c->done = c->lost = s->lost;
	write_request(&line, s, c);
	if (line.failed) {
		pthread_mutex_unlock(&p->mu);
		free(line.at);
		process_fail(c->method->flags & QUIET ? NULL : p, "%s: out of memory", c->method->name);
		return -1;
	}
	pthread_cond_init(&c->woken, NULL);
	c->next = s->calls;
	s->calls = c;
	pthread_mutex_unlock(&p->mu);

	send_request(s, &line, c);
	await(p, s, c);
	pthread_cond_destroy(&c->woken);
	free(line.at);
	return conclude(p, s, c);
}

/* The process's session with a reference, or NULL. Nothing is in flight on an
 * idle one; if there is something to read on it, it is its end. */
static struct session *current(struct process *p)
{
	struct session *s;

	pthread_mutex_lock(&p->mu);
	s = p->session;
	if (s)
		s->refs++;
	if (s && !s->calls && !s->led && wait_readable(s->fd, 0) != 0) {
		lead(p, s, now_ms() + FAREWELL_WAIT_MS);
		wake_leader(s);
	}
	if (s && s->lost) {
		pthread_mutex_unlock(&p->mu);
		release(p, s);
		return NULL;
	}
	pthread_mutex_unlock(&p->mu);
	return s;
}

/* A session for a call that needs no handle, with a reference; or NULL and the error set. */
static struct session *open_session(struct process *p, const struct method *m)
{
	struct process *to = m->flags & QUIET ? NULL : p;
	char path[SOCKET_PATH_BYTES] = "", tried[TRIED_BYTES] = "";
	struct session *s;
	int fd;

	pthread_mutex_lock(&p->opening);
	s = current(p);
	if (!s) {
		fd = find_tlsd(path, tried);
		if (fd < 0)
			process_fail(to, "%s: backend: no tlsd: %s", m->name, tried);
		else if (!(s = make(p, fd, path)))
			process_fail(to, "%s: out of memory", m->name);
		if (fd >= 0 && !s)
			close(fd);
		if (s) {
			pthread_mutex_lock(&p->mu);
			atomic_store(&p->socket, fd);
			p->session = s;
			s->refs++;
			pthread_mutex_unlock(&p->mu);
		}
	}
	pthread_mutex_unlock(&p->opening);
	return s;
}

/* The session of the call's handle, with a reference; or NULL and the error set. */
static struct session *session_of(struct process *p, const struct call *c)
{
	char why[WHY_BYTES + 8] = "";
	struct session *s = NULL;

	pthread_mutex_lock(&p->mu);
	if (c->handle >= 1 && c->handle <= p->inherited)
		text_add(why, sizeof why, "no such handle: it belongs to the process that this one was forked from");
	else if (c->handle >= 1 && c->handle < p->first)
		text_add(why, sizeof why, "lost: %s", p->why_lost);
	else if (!p->session)
		text_add(why, sizeof why, "no such handle");
	else
		(s = p->session)->refs++;
	pthread_mutex_unlock(&p->mu);
	if (!s)
		process_fail(p, "%s: handle %" PRId64 ": %s", c->method->name, c->handle, why);
	return s;
}

/* Tells the session of a CA bundle. trusting is held. */
static int send_ca(struct process *p, struct session *s, const char *path)
{
	struct json_out params = { 0 };
	struct call c = { .method = &set_ca_bundle };
	int result;

	json_put(&params, "[");
	json_put_string(&params, path);
	json_put(&params, "]");
	if (params.failed) {
		free(params.at);
		return (int)process_fail(p, "%s: out of memory", set_ca_bundle.name);
	}
	c.params = params.at;
	result = call_on(p, s, &c);
	free(params.at);
	return result;
}

/* Gives a new session the CA bundle that the host has set in an earlier one. */
static int restore_ca(struct process *p, struct session *s)
{
	bool missing;
	int result = 0;

	pthread_mutex_lock(&p->trusting);
	pthread_mutex_lock(&p->mu);
	missing = s->ca_version != p->ca_version;
	pthread_mutex_unlock(&p->mu);
	if (missing)
		result = send_ca(p, s, atomic_load(&p->ca_bundle));
	if (missing && result == 0) {
		pthread_mutex_lock(&p->mu);
		s->ca_version = p->ca_version;
		pthread_mutex_unlock(&p->mu);
	}
	pthread_mutex_unlock(&p->trusting);
	return result;
}

int trust(struct process *p, const char *path)
{
	char *copy = strdup(path);
	struct session *s;
	int result = -1;

	if (!copy)
		return (int)process_fail(p, "%s: out of memory", set_ca_bundle.name);
	pthread_mutex_lock(&p->trusting);
	s = open_session(p, &set_ca_bundle);
	if (s)
		result = send_ca(p, s, path);
	if (result == 0) {
		copy = atomic_exchange(&p->ca_bundle, copy);
		pthread_mutex_lock(&p->mu);
		s->ca_version = ++p->ca_version;
		pthread_mutex_unlock(&p->mu);
	}
	pthread_mutex_unlock(&p->trusting);
	if (s)
		release(p, s);
	free(copy);
	return result;
}

int call_run(struct process *p, struct call *c)
{
	struct session *s = c->method->flags & OPENS ? open_session(p, c->method) : session_of(p, c);
	int result = 0;

	if (!s)
		return -1;
	if (c->method->flags & TRUSTS)
		result = restore_ca(p, s);
	if (result == 0)
		result = call_on(p, s, c);
	release(p, s);
	return result;
}

/* When the library is unloaded, at the latest at the end of the process. */
__attribute__((destructor)) static void unload(void)
{
	struct process *p = process_retire();

	if (!p)
		return;
	if (p->session)
		release(p, p->session);
	process_free(p);
}
