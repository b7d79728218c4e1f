/*
 * session.c - a session, see session.h.
 *
 * Leader and follower. Several threads wait for answers on one socket, and there is no thread
 * to serve them. So one of those that wait leads: it reads answers, hands the others theirs,
 * and when it has its own, wakes one of the others to lead.
 *
 * Sending and reading wait, each without mu. That cannot end in a deadlock with a tlsd that has
 * stopped to read because nobody takes its answers: it can only have answers to calls that were
 * sent, the thread of each of these waits, and one of those that wait leads. A sender that waits
 * for room therefore never has to read itself.
 *
 * Only the leader, or a thread that has made sure that nobody leads, ends calls whose sending has
 * begun. A sender that fails shuts the socket down and then waits like any other. The leader
 * reads what tlsd had still to say, meets the end, and ends all calls.
 *
 * Cancelling. tls_Cancel, which may interrupt the thread that holds mu, only counts and rings
 * the bell. The leader and the sender listen to it, and so does the thread that looks for a tlsd.
 * Each that hears it stirs the threads that wait for a turn: they leave at once, because nothing
 * of them was sent. Of the rest the leader tells tlsd, which then answers them. For that the
 * leader needs no turn and never waits: each message is sent, with mu held, only if nobody else
 * is sending and there is room for all of it, which on a Unix stream socket is all or nothing
 * for so few bytes. Otherwise it looks again at every tick.
 *
 * A call that began to be sent cannot be taken back, so its answer is waited for. But a tlsd
 * that does not answer is not waited for longer than CANCEL_WAIT_MS. Then the session is given
 * up as lost.
 */
#define _POSIX_C_SOURCE 200809L
#include "session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "text.h"

enum {
	HELLO_WAIT_MS = 10000,
	FAREWELL_WAIT_MS = 1000, /* for the rest of a message that was begun */
	CANCEL_WAIT_MS = 5000,   /* for the answers to calls that are cancelled */
};

#define NOT_ENDED "tlsd has not ended a cancelled call in time"
#define OTHER_USER "the effective user of this program has changed"

/* --- the life of a session --- */

struct session *session_make(struct process *p, int fd)
{
	struct session *s = calloc(1, sizeof *s);

	if (!s || !wire_init(&s->wire, fd)) {
		int error = s ? errno : ENOMEM;
		if (!s)
			close(fd);
		free(s);
		errno = error;
		return NULL;
	}
	s->first = p->first;
	s->heard = atomic_load(&p->cancels);
	s->euid = geteuid();
	s->refs = 1;
	s->next_id = HELLO_ID + 1;
	turn_init(&s->sending);
	return s;
}

bool session_greet(struct session *s, struct wait *w, char why[WHY_BYTES])
{
	struct json_out line = { 0 };
	struct span answer;

	json_put(&line, "{\"jsonrpc\":\"2.0\",\"id\":");
	json_put_int(&line, HELLO_ID);
	json_put(&line, ",\"method\":\"tls.Hello\",\"params\":{\"version\":1,");
	json_put(&line, "\"capabilities\":[\"data\"],\"firstHandle\":");
	json_put_int(&line, s->first);
	json_put(&line, "}}\n");
	w->deadline = now_ms() + HELLO_WAIT_MS;
	if (!line.failed)
		wire_send(&s->wire, line.at, line.len, NULL, w); /* tlsd may refuse unread */
	free(line.at);
	return wire_read(&s->wire, w, &answer, why) && answer_agree(s, answer, why);
}

void session_release(struct process *p, struct session *s)
{
	bool last = --s->refs == 0;

	if (last)
		channels_drop_all(&s->channels);
	pthread_mutex_unlock(&p->mu);
	if (!last)
		return;
	wire_free(&s->wire);
	turn_destroy(&s->sending);
	free(s);
}

void session_lose(struct process *p, struct session *s, const char *why)
{
	if (s->lost)
		return;
	s->lost = true;
	if (!*s->why)
		text_add(s->why, sizeof s->why, "%s", why);
	wire_end(&s->wire);
	for (struct call *c = s->calls; c; c = c->next) {
		if (!c->done)
			c->done = c->lost = true;
		pthread_cond_signal(&c->woken);
	}
	channels_drop_all(&s->channels);
	if (p->session == s) {
		p->session = NULL;
		s->refs--;
		p->first = (int64_t)atomic_load(&p->highest) + 1;
		p->why_lost[0] = '\0';
		text_add(p->why_lost, sizeof p->why_lost, "%s", s->why);
	}
	bell_ring(&p->bell); /* for threads that wait on channels */
}

/* Loses it, and gives mu back for a moment. */
static void lose_and_release(struct process *p, struct session *s, const char *why)
{
	s->refs++;
	session_lose(p, s, why);
	session_release(p, s);
	pthread_mutex_lock(&p->mu);
}

void session_check(struct process *p, bool control)
{
	struct session *s = p->session;

	if (s && s->euid != geteuid())
		lose_and_release(p, s, OTHER_USER);
	else if (s && control && !wire_is_ours(&s->wire))
		lose_and_release(p, s, WIRE_REPLACED);
}

/* --- cancelling; mu is held --- */

/* Finds the calls that were cancelled since the last time. */
static void hear(struct process *p, struct session *s)
{
	unsigned cancels = atomic_load(&p->cancels);

	if (s->heard == cancels)
		return;
	s->heard = cancels;
	for (struct call *c = s->calls; c; c = c->next) {
		if (c->began == cancels || c->cancel_by || c->done)
			continue;
		c->cancel_by = now_ms() + CANCEL_WAIT_MS;
		s->cancelling++;
	}
	turn_stir(&p->trusting);
	turn_stir(&p->opening);
	turn_stir(&s->sending);
}

/* Tells tlsd that a call is cancelled. Nobody else is sending. False if there is no room. */
static bool tell(struct session *s, struct call *c)
{
	char line[96] = "";

	text_add(line, sizeof line,
		 "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancelRequest\",\"params\":[%" PRId64 "]}\n",
		 c->id);
	switch (wire_try_send(&s->wire, line, strlen(line))) {
	case NO_ROOM:
		return false;
	case BROKEN:
		wire_end(&s->wire);
		break;
	case SENT:
		break;
	}
	c->told = true;
	return true;
}

/* Does what the leader has to do for calls that are cancelled, and says in w when to look again.
 * by is the wait's own deadline, 0 for none. */
static void serve_cancelled(struct process *p, struct session *s, struct wait *w, int64_t by)
{
	hear(p, s);
	w->deadline = by;
	w->tick = false;
	w->why = NULL;
	if (s->cancelling == 0)
		return;
	w->why = NOT_ENDED;
	for (struct call *c = s->calls; c; c = c->next) {
		if (!c->cancel_by || c->done)
			continue;
		if (!w->deadline || c->cancel_by < w->deadline)
			w->deadline = c->cancel_by;
		if (c->begun && !c->told && !s->sending.taken && !tell(s, c))
			w->tick = true;
	}
}

/* --- reading --- */

struct reading {
	struct wait wait; /* the first, so that a pointer to it is one to the whole */
	struct process *p;
	struct session *s;
	int64_t by;
};

static void look_from_reading(struct wait *w)
{
	struct reading *r = (struct reading *)w;

	pthread_mutex_lock(&r->p->mu);
	serve_cancelled(r->p, r->s, w, r->by);
	pthread_mutex_unlock(&r->p->mu);
}

/* Reads one answer. mu is held before and after, and nobody leads. */
static void lead(struct process *p, struct session *s, int64_t by)
{
	struct reading r = { .wait = { .bell = &p->bell, .look = look_from_reading }, .p = p,
			     .s = s, .by = by };
	char why[WHY_BYTES] = "";
	struct span line;
	bool ok;

	s->led = true;
	pthread_mutex_unlock(&p->mu);
	ok = wire_read(&s->wire, &r.wait, &line, why);
	pthread_mutex_lock(&p->mu);
	if (!ok || !answer_deliver(p, s, line, why))
		session_lose(p, s, why);
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

/* Waits until the call is done. mu is held. */
static void await(struct process *p, struct session *s, struct call *c)
{
	while (!c->done) {
		if (s->led) {
			c->parked = true;
			pthread_cond_wait(&c->woken, &p->mu);
			c->parked = false;
		} else {
			lead(p, s, 0);
		}
	}
}

/* --- sending --- */

struct sending {
	struct wait wait; /* as in struct reading */
	struct process *p;
	struct session *s;
	struct call *c;
};

static void look_from_sending(struct wait *w)
{
	struct sending *out = (struct sending *)w;

	pthread_mutex_lock(&out->p->mu);
	hear(out->p, out->s);
	w->deadline = out->c->cancel_by;
	wake_leader(out->s);
	pthread_mutex_unlock(&out->p->mu);
}

/* Writes the request. The calls that wait on a handle that it closes are cancelled before it. */
static void write_request(struct json_out *out, const struct session *s, const struct call *c)
{
	for (const struct call *w = c->method->closes ? s->calls : NULL; w; w = w->next) {
		if (w->handle != c->handle || w->method->waits_on != c->method->closes || !w->begun)
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
	json_put(out, "}\n");
}

/* Sends the lines. The call has the turn, and mu is not held. */
static void send_lines(struct process *p, struct session *s, const struct json_out *lines,
		       struct call *c)
{
	struct sending out = { .wait = { .bell = &p->bell, .look = look_from_sending }, .p = p,
			       .s = s, .c = c };
	struct owned *both[2] = { c->lend, c->pass }, *one[2] = { c->pass };

	if (wire_send(&s->wire, lines->at, lines->len, c->lend ? both : one, &out.wait))
		return;
	pthread_mutex_lock(&p->mu);
	if (!*s->why && !wire_is_ours(&s->wire))
		text_add(s->why, sizeof s->why, WIRE_REPLACED);
	else if (!*s->why && out.wait.deadline)
		text_add(s->why, sizeof s->why, NOT_ENDED);
	pthread_mutex_unlock(&p->mu);
	wire_end(&s->wire);
}

/* --- a call --- */

int session_cancelled(struct process *p, const struct call *c)
{
	const char *op = c->op ? c->op : c->method->name;

	if (c->handle)
		return (int)process_fail(p, "cancelled", "%s: handle %" PRId64
					 ": cancelled by the caller", op, c->handle);
	return (int)process_fail(p, "cancelled", "%s: cancelled by the caller", op);
}

/* Sets an error of tlsd's. Its text begins with the method; the host knows its own call only. p may
 * be NULL. */
static void set_tlsds_error(struct process *p, const struct call *c, const char *message)
{
	size_t len = c->op ? strlen(c->method->name) : 0;
	bool rename = len > 0 && strncmp(message, c->method->name, len) == 0;

	if (!p)
		return;
	pthread_mutex_lock(&p->mu);
	process_set_error(p, c->kind, "%s%s", rename ? c->op : "", message + (rename ? len : 0));
	pthread_mutex_unlock(&p->mu);
}

/* The host's view of how the call has ended. */
static int conclude(struct process *p, const struct session *s, struct call *c)
{
	struct process *to = c->method->flags & QUIET && !c->cancel_by ? NULL : p;
	const char *op = c->op ? c->op : c->method->name;
	char *message = c->text;

	if (!c->lost && !c->failed && (c->method->result == NUMBER || c->text))
		return 0;
	c->text = NULL;
	if (c->lost && c->cancel_by)
		session_cancelled(p, c);
	else if (c->lost && c->handle)
		process_fail(to, "lost", "%s: handle %" PRId64 ": lost: %s", op, c->handle, s->why);
	else if (c->lost)
		process_fail(to, "lost", "%s: lost: %s", op, s->why);
	else if (message)
		set_tlsds_error(to, c, message);
	else
		process_fail(to, "limit", "%s: out of memory", op);
	free(message);
	return -1;
}

/* Makes the call one of the session's. mu is held. */
static void enter(struct session *s, struct call *c)
{
	c->id = s->next_id++;
	c->done = c->lost = s->lost;
	pthread_cond_init(&c->woken, NULL);
	c->next = s->calls;
	s->calls = c;
}

static void leave(struct session *s, struct call *c)
{
	struct call **link = &s->calls;

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	pthread_cond_destroy(&c->woken);
	if (c->cancel_by)
		s->cancelling--;
	wake_leader(s);
}

/* Sends the call, when its turn has come and unless that is too late. mu is held, but not while
 * it sends. False if the call was cancelled before. */
static bool send_in_turn(struct process *p, struct session *s, struct call *c)
{
	struct json_out lines = { 0 };

	if (!turn_take(p, &s->sending, c->began))
		return false;
	if (!c->done) {
		write_request(&lines, s, c);
		c->begun = !lines.failed;
		c->done = c->failed = lines.failed; /* without a message: out of memory */
	}
	if (c->begun) {
		pthread_mutex_unlock(&p->mu);
		send_lines(p, s, &lines, c);
		pthread_mutex_lock(&p->mu);
	}
	free(lines.at);
	turn_give_back(&s->sending);
	if (s->cancelling > 0 && s->led)
		bell_ring(&p->bell); /* the leader may have wanted the turn */
	return true;
}

int session_call(struct process *p, struct session *s, struct call *c)
{
	bool in_time;

	pthread_mutex_lock(&p->mu);
	enter(s, c);
	in_time = send_in_turn(p, s, c);
	owned_close(c->pass);
	c->pass = NULL;
	if (c->begun)
		await(p, s, c);
	leave(s, c);
	pthread_mutex_unlock(&p->mu);
	return in_time ? conclude(p, s, c) : session_cancelled(p, c);
}

struct session *session_current(struct process *p)
{
	struct session *s;

	session_check(p, true);
	s = p->session;
	if (!s)
		return NULL;
	s->refs++;
	/* If there is anything to read on an idle one, it is its end. */
	while (!s->lost && !s->calls && !s->led && wire_has_input(&s->wire))
		lead(p, s, now_ms() + FAREWELL_WAIT_MS);
	wake_leader(s);
	if (!s->lost)
		return s;
	session_release(p, s);
	pthread_mutex_lock(&p->mu);
	return NULL;
}
