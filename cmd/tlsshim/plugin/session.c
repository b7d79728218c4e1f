/*
 * Several threads wait for answers on one socket, and there is no thread to
 * serve them. So one of those that wait leads: it reads answers, hands the
 * others theirs, and when it has its own, wakes one of the others to lead. A
 * blob is read straight into the buffer of the call that it answers.
 *
 * Sending and reading wait, each without mu. That cannot end in a deadlock
 * with a tlsd which has stopped to read because nobody takes its answers: it
 * can only have answers for calls that were sent, the thread of each of these
 * waits, and one of those that wait leads. A sender that waits for room
 * therefore never has to read itself.
 *
 * Only the leader, or somebody who has made sure that nobody leads, ends calls
 * whose sending has begun. A sender that fails shuts the socket down and then
 * waits like any other; the leader reads what tlsd had still to say, meets the
 * end, and ends all calls.
 *
 * Answers to Writes that run ahead have no thread that waits for them. They are so
 * few and short that the socket holds them all (ahead.h), so tlsd never waits
 * for their sake, and it does not matter when they are taken.
 *
 * tls_Cancel, which may interrupt whoever holds mu, only counts and rings the
 * bell. There is always at most one who listens: the leader of the session or,
 * while there is none, the one who opens it. The others need not hear it. Those
 * that wait for a turn are stirred by the listener or, if there is none, by the
 * sender that they wait for, who looks at every tick; they leave at once, for
 * nothing of them was sent. Of the rest the leader tells tlsd, which then answers
 * them. For that it needs no turn and never waits: each message is sent, with mu
 * held, only if nobody else is sending and there is room for all of it, which on a
 * Unix stream socket is all or nothing for so few bytes. Else it goes on reading,
 * so that what is said above of deadlocks holds; the sender rings when it has
 * finished, and while there is no room it looks at every tick.
 *
 * A call that began to be sent cannot be taken back, and what tlsd has read for
 * it would be lost if its answer were not waited for. But a tlsd that does not
 * answer is not waited for longer than CANCEL_WAIT_MS. Then the session is given
 * up as lost, wherever it is stuck: in a request that tlsd does not read, in an
 * answer that it does not finish, in a call that it does not end. A session
 * that has no answer to Hello yet is given up at once, because there is
 * nothing to lose in it; calls that began later wait for that and open another.
 */
#define _GNU_SOURCE
#include "session.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "json.h"
#include "text.h"

enum {
	HELLO_WAIT_MS = 10000,
	FAREWELL_WAIT_MS = 1000, /* for the rest of a message that was begun */
	FINISH_WAIT_MS = 5000,   /* at the end of the process, for Writes that run ahead */
	CANCEL_WAIT_MS = 5000,   /* for the answers to calls that are cancelled */
};

#define NOT_ENDED "tlsd has not ended a cancelled call in time"
#define GIVEN_UP "cancelled before tlsd had answered"

/* --- the life of a session --- */

/* Whether the host has not switched shared memory off. */
static bool share_wanted(void)
{
	const char *wanted = secure_getenv("TLSD_SHARED_MEMORY");

	return !wanted || strcmp(wanted, "0") != 0;
}

struct session *session_make(struct process *p, int fd, const char *path, unsigned born)
{
	struct session *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	wire_init(&s->wire, fd, share_wanted());
	text_add(s->path, sizeof s->path, "%s", path);
	s->first = p->first;
	s->hello_by = now_ms() + HELLO_WAIT_MS;
	s->born = s->heard = born;
	s->refs = 1;
	s->next_id = HELLO_ID + 1;
	turn_init(&s->sending);
	return s;
}

void session_release(struct process *p, struct session *s)
{
	int fd = s->wire.fd;
	bool last;

	pthread_mutex_lock(&p->mu);
	last = --s->refs == 0;
	pthread_mutex_unlock(&p->mu);
	if (!last)
		return;
	atomic_compare_exchange_strong(&p->socket, &fd, -1);
	wire_free(&s->wire);
	free(s->spare);
	while (s->calls_ahead)
		ahead_end(s, s->calls_ahead, NULL);
	stream_close_all(s);
	turn_destroy(&s->sending);
	free(s);
}

/* Ends the session. mu is held, and the caller has a reference. */
static void lose(struct process *p, struct session *s, const char *why)
{
	if (s->lost)
		return;
	s->lost = true;
	if (!*s->why)
		text_add(s->why, sizeof s->why, "%s", why);
	wire_end(&s->wire);
	s->queue = NULL;
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
		text_add(p->why_lost, sizeof p->why_lost, "%s", s->why);
	}
	turn_stir(&p->opening);
}

/* --- cancelling; mu is held --- */

/* Whether it only waits. */
static bool is_no_request(const struct call *c)
{
	return c->drains || c->queues;
}

void session_cancel(struct session *s, struct call *c)
{
	if (c->cancel_by || c->done)
		return;
	c->cancel_by = now_ms() + CANCEL_WAIT_MS;
	s->cancelling++;
	if (is_no_request(c)) { /* tlsd knows nothing of it */
		ahead_dequeue(s, c);
		c->done = true;
		pthread_cond_signal(&c->woken);
	}
}

/* Finds the calls that were cancelled since the last time. */
static void hear(struct process *p, struct session *s)
{
	unsigned cancels = atomic_load(&p->cancels);

	if (s->heard == cancels)
		return;
	s->heard = cancels;
	for (struct call *c = s->calls; c; c = c->next)
		if (c->began != cancels)
			session_cancel(s, c);
	turn_stir(&p->trusting);
	turn_stir(&p->opening);
	turn_stir(&s->sending);
	for (int i = 0; i < STREAM_BUCKETS; i++)
		for (struct stream *st = s->streams[i]; st; st = st->next)
			turn_stir(&st->reading);
}

/* Tells tlsd that a call is cancelled. Nobody else is sending. False if there is no room. */
static bool tell(struct session *s, struct call *c)
{
	char line[96] = "";

	text_add(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancelRequest\",\"params\":[%" PRId64 "]}\n", c->id);
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

/* Does what the leader has to do for calls that are cancelled, and says in w
 * what it has to wait for: an answer by this time, 0 for none. */
static void serve_cancelled(struct process *p, struct session *s, struct wait *w, int64_t by)
{
	hear(p, s);
	w->deadline = by;
	w->tick = s->queue != NULL;
	w->why = NULL;
	if (s->cancelling == 0)
		return;
	w->why = s->agreed ? NOT_ENDED : GIVEN_UP;
	w->ended = !s->agreed;
	for (struct call *c = s->calls; c && s->agreed; c = c->next) {
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
	struct call *mine; /* that the leader waits for, or NULL */
	int64_t by;
};

/* Whether the leader need not lead any more, though there was no answer: what it waits
 * for was no answer. */
static bool is_over(const struct session *s, const struct call *mine)
{
	return s->agreed && mine && is_no_request(mine) && mine->done;
}

static void look_from_reading(struct wait *w)
{
	struct reading *r = (struct reading *)w;

	pthread_mutex_lock(&r->p->mu);
	ahead_look(r->s);
	serve_cancelled(r->p, r->s, w, r->by);
	w->ended |= is_over(r->s, r->mine);
	w->ready = wire_has_shared(&r->s->wire);
	pthread_mutex_unlock(&r->p->mu);
}

/* Reads one answer, for the sake of a call or of none. mu is held before and after, and nobody leads. */
static void lead(struct process *p, struct session *s, struct call *mine, int64_t by)
{
	struct reading r = { .wait = { .bell = atomic_load(&p->bell), .look = look_from_reading }, .p = p, .s = s, .mine = mine, .by = by };
	char why[WHY_BYTES] = "";
	struct answer a;
	bool ok;

	s->led = true;
	ahead_look(s);
	atomic_store(&s->wire.sleep_for, s->awaiting_writes > 0 || !mine ? SLEEPS_FOR_ALL : SLEEPS_FOR_ANSWERS);
	serve_cancelled(p, s, &r.wait, by);
	r.wait.ended |= is_over(s, mine);
	pthread_mutex_unlock(&p->mu);
	ok = wire_read(&s->wire, &r.wait, &a, why);
	pthread_mutex_lock(&p->mu);
	/* Else a part of an answer may have been read, and the next leader goes on with it. */
	if (ok || !r.wait.ended || !is_over(s, mine)) {
		r.by = 0; /* it is there; what comes with it may take its time */
		r.mine = NULL;
		r.wait.ended = false;
		serve_cancelled(p, s, &r.wait, r.by);
		if (!ok || !answer_deliver(p, s, &a, &r.wait, why))
			lose(p, s, why);
	}
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

/* Whether the thread of a call waits for answers to Writes. */
static bool awaits_writes(const struct call *c)
{
	return is_no_request(c) || c->method->flags & RUNS_AHEAD;
}

/* Waits until the call is done. Before Hello is answered well, no call is. mu is held. */
static void await(struct process *p, struct session *s, struct call *c)
{
	while (!c->done || !(s->agreed || s->lost)) {
		if (s->led) {
			if (awaits_writes(c) && wire_sleep_for_all(&s->wire))
				process_ring(p);
			c->parked = true;
			pthread_cond_wait(&c->woken, &p->mu);
			c->parked = false;
		} else {
			lead(p, s, c, s->agreed ? 0 : s->hello_by);
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

	struct session *s = out->s;

	pthread_mutex_lock(&out->p->mu);
	hear(out->p, s);
	w->deadline = out->c->cancel_by;
	/* Should tlsd wait for somebody to take answers after all, we are the only one who can be waiting for it. */
	while (!s->led && !s->lost && wire_has_input(&s->wire))
		lead(out->p, s, NULL, now_ms() + FAREWELL_WAIT_MS);
	wake_leader(s);
	pthread_mutex_unlock(&out->p->mu);
}

/* Writes the request, and before it the cancellation of what waits on a handle that it closes. */
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
	if (c->patient) {
		json_put(out, "[");
		json_put_int(out, c->handle);
		json_put(out, ",1]");
	} else {
		json_put(out, c->params);
	}
	if (c->has_blob) {
		json_put(out, ",\"raw\":");
		json_put_int(out, (int64_t)c->blob_len);
	}
	json_put(out, "}\n");
}

/* Sends the request. The call has the turn, and mu is not held. */
static void send_request(struct process *p, struct session *s, const struct json_out *line, struct call *c)
{
	struct sending out = { .wait = { .bell = -1, .look = look_from_sending }, .p = p, .s = s, .c = c };
	char hello[160] = "";
	struct iovec parts[3] = {
		{ .iov_base = hello },
		{ .iov_base = line->at, .iov_len = line->len },
		{ .iov_base = (void *)(uintptr_t)c->blob, .iov_len = c->has_blob ? c->blob_len : 0 },
	};

	if (!s->greeted) {
		text_add(hello, sizeof hello,
			 "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"tls.Hello\",\"params\":"
			 "{\"version\":1,\"capabilities\":[\"raw\"%s],\"firstHandle\":%" PRId64 "}}\n",
			 HELLO_ID, s->wire.rings.mem ? ",\"ring\"" : "", s->first);
		parts[0].iov_len = strlen(hello);
		s->greeted = true;
	}
	if (wire_send(&s->wire, parts, 3, parts[0].iov_len > 0, &out.wait))
		return;
	if (out.wait.deadline) {
		pthread_mutex_lock(&p->mu);
		if (!*s->why)
			text_add(s->why, sizeof s->why, NOT_ENDED);
		pthread_mutex_unlock(&p->mu);
	}
	wire_end(&s->wire);
}

/* --- a call --- */

/* The host's view of how the call has ended. */
static int conclude(struct process *p, const struct session *s, struct call *c)
{
	struct process *to = c->method->flags & QUIET && !c->cancel_by ? NULL : p;
	const char *op = c->method->name;
	char *message = c->text;

	if (!c->lost && !c->failed && (c->method->result != TEXT || c->text))
		return 0;
	c->text = NULL;
	if (c->lost && c->cancel_by)
		call_cancelled(p, c);
	else if (c->lost && !s->agreed)
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

/* Makes the call one of the session's. mu is held. */
static void enter(struct session *s, struct call *c)
{
	c->id = s->next_id++;
	c->done = c->lost = s->lost;
	pthread_cond_init(&c->woken, NULL);
	calls_add(s, c);
	s->waiting++;
	s->awaiting_writes += awaits_writes(c);
}

static void leave(struct process *p, struct session *s, struct call *c)
{
	calls_remove(s, c);
	s->waiting--;
	s->awaiting_writes -= awaits_writes(c);
	pthread_cond_destroy(&c->woken);
	if (c->cancel_by)
		s->cancelling--;
	if (!s->agreed)
		turn_stir(&p->opening); /* see session_current */
	wake_leader(s);
}

/* Sends the call, when its turn has come and unless that is too late. mu is held,
 * but not while it sends. False if the call was cancelled before. */
static bool send_in_turn(struct process *p, struct session *s, struct call *c)
{
	struct json_out line = { 0 };

	if (!turn_take(p, &s->sending, c->began))
		return false;
	if (!c->done) {
		write_request(&line, s, c);
		c->begun = !line.failed;
		c->done = c->failed = line.failed; /* without a message: out of memory */
	}
	if (c->begun) {
		s->wire.put_shared = s->wire.shared;
		pthread_mutex_unlock(&p->mu);
		send_request(p, s, &line, c);
		pthread_mutex_lock(&p->mu);
	}
	free(line.at);
	turn_give_back(&s->sending);
	if (s->cancelling > 0 && s->led)
		process_ring(p); /* the leader may have wanted the turn */
	return true;
}

void session_wait(struct process *p, struct session *s, struct call *c)
{
	enter(s, c);
	await(p, s, c);
	leave(p, s, c);
}

int session_call(struct process *p, struct session *s, struct call *c)
{
	bool gone = false, in_time = true;
	struct stream *st;

	pthread_mutex_lock(&p->mu);
	st = stream_find(s, c->handle);
	c->may_run_ahead = st && st->ready && c->method->flags & RUNS_AHEAD && !atomic_load(&p->strict);
	if (!st || ahead_make_way(p, s, st, c)) {
		enter(s, c);
		in_time = send_in_turn(p, s, c);
		gone = ahead_go(s, st, c);
		if (c->begun && !gone)
			await(p, s, c);
		leave(p, s, c);
		if (c->patient && c->done)
			ahead_collect(p, s, st, c);
	} else {
		in_time = c->lost || c->failed;
	}
	if (gone)
		c->number = (int64_t)c->blob_len;
	else if (c->method->flags & MAKES_READY && c->done && !c->failed && !c->lost)
		stream_make_ready(s, c->method->flags & MAKES_HANDLE ? c->number : c->handle);
	if (st && c->method->closes && c->done && !c->failed && !c->lost)
		stream_close(s, st);
	if (st)
		ahead_raise(st, c);
	stream_release(st);
	pthread_mutex_unlock(&p->mu);
	return in_time ? conclude(p, s, c) : call_cancelled(p, c);
}

void session_finish(struct process *p, struct session *s)
{
	int64_t by = now_ms() + FINISH_WAIT_MS;

	while (s->ahead > 0 && !s->lost && !s->led)
		lead(p, s, NULL, by);
}

struct session *session_current(struct process *p, unsigned began)
{
	struct session *s;
	bool idle;

	for (;;) {
		s = p->session;
		if (!s)
			return NULL;
		idle = s->waiting == 0 && !s->led;
		if (s->agreed || !process_cancelled(p, s->born))
			break;
		/* It is being given up; if nobody is left to do it, we do. */
		if (process_cancelled(p, began))
			return NULL;
		s->refs++;
		if (idle)
			lose(p, s, GIVEN_UP);
		else
			pthread_cond_wait(&p->opening.free, &p->mu);
		pthread_mutex_unlock(&p->mu);
		session_release(p, s);
		pthread_mutex_lock(&p->mu);
	}
	s->refs++;
	/* On an idle one there can be answers to what runs ahead; if there is anything else, it is its end. */
	while (!s->lost && s->waiting == 0 && !s->led && wire_has_input(&s->wire))
		lead(p, s, NULL, now_ms() + FAREWELL_WAIT_MS);
	wake_leader(s);
	if (!s->lost)
		return s;
	pthread_mutex_unlock(&p->mu);
	session_release(p, s);
	pthread_mutex_lock(&p->mu);
	return NULL;
}
