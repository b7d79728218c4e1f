/*
 * exchange.c - the calls of a session and their answers, see session.h.
 *
 * The leader. Several threads wait for answers on one socket, and the library has no thread of its
 * own. So one of the waiting threads is the leader. It reads answers and gives each to its call.
 * When it has its own answer, it wakes another waiting thread, which becomes the leader.
 *
 * While a thread waits to send or to read, it does not hold mu. tlsd may stop receiving until its
 * answers are read. A sender then waits, and does not read, but another thread does: tlsd has
 * answers only to calls that were sent, and of the threads that made these calls one is the leader.
 *
 * A call counts as sent from the beginning of its sending. From then on only two things end it: the
 * leader reads its answer, or session_lose ends all calls. If the sending fails, the sender shuts
 * the socket down and waits like the others. The leader reads the rest, meets the end, and calls
 * session_lose.
 *
 * Cancelling. tls_Cancel may run in a signal handler of the thread that holds mu. So tls_Cancel
 * takes no lock. It only increments p->cancels, and rings the bell. The leader, the sender, and
 * the thread that looks for a tlsd listen to the bell. Each of them wakes the threads that wait
 * for their turn to send, to change the settings or to open a session. A woken thread leaves at
 * once, because nothing of its call was sent. Only a call that closes a handle is sent
 * nevertheless, because it must free the handle. For a call that was sent, the leader sends a
 * cancel request, and tlsd then answers the call.
 *
 * The leader never waits to send the cancel request. It sends only if no other thread is sending,
 * and if there is room. The line is short, and a Unix stream socket takes a short line as a whole
 * or not at all. A leader that cannot send tries again at every tick. If the cancelled call has no
 * answer after CANCEL_WAIT_MS, the leader ends the session.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "text.h"

enum { CANCEL_WAIT_MS = 5000 /* the longest wait for the answer to a cancelled call */ };

#define NOT_ENDED "tlsd has not ended a cancelled call in time"
#define CANCEL_LINE \
	"{\"jsonrpc\":\"2.0\",\"method\":\"$/cancelRequest\",\"params\":[%" PRId64 "]}\n"

/* --- cancelling; mu is held --- */

/* Marks the calls that were cancelled since the function last looked at p->cancels. */
static void note_cancels(struct process *p, struct session *s)
{
	unsigned cancels = atomic_load(&p->cancels);

	if (s->cancels_seen == cancels)
		return;
	s->cancels_seen = cancels;
	for (struct call *c = s->calls; c; c = c->next) {
		if (c->began == cancels || c->cancel_by || c->done)
			continue;
		c->cancel_by = now_ms() + CANCEL_WAIT_MS;
		s->cancelling++;
	}
	turn_wake_all(&p->setting);
	turn_wake_all(&p->opening);
	turn_wake_all(&s->sending);
}

/* Sends a cancel request. No other thread may be sending. Returns false if there is no room. */
static bool send_cancel(struct session *s, struct call *c)
{
	char line[96] = "";

	text_add(line, sizeof line, CANCEL_LINE, c->id);
	c->cancel_sent = wire_try_send(&s->wire, line, strlen(line));
	return c->cancel_sent;
}

/* A wait of the leader, or of the sender of c. */
struct control_wait {
	/* Must be first, because look_from_reading() and look_from_sending() cast the address of
	 * wait to the address of the struct. */
	struct wait wait;
	struct process *p;
	struct session *s;
	int64_t by; /* the leader: the parameter deadline of session_lead; 0: none */
	struct call *c;
};

/* --- reading --- */

/* The leader's wait calls this function before each sleep (wait.h). The function sends cancel
 * requests, and sets the deadline and the tick of the next sleep. */
static void look_from_reading(struct wait *w)
{
	struct control_wait *r = (struct control_wait *)w;
	struct session *s = r->s;

	pthread_mutex_lock(&r->p->mu);
	note_cancels(r->p, s);
	w->deadline = r->by;
	w->tick = false;
	w->why = s->cancelling > 0 ? NOT_ENDED : NULL;
	for (struct call *c = s->cancelling > 0 ? s->calls : NULL; c; c = c->next) {
		if (!c->cancel_by || c->done)
			continue;
		if (!w->deadline || c->cancel_by < w->deadline)
			w->deadline = c->cancel_by;
		if (c->sent && !c->cancel_sent && !s->sending.taken && !send_cancel(s, c))
			w->tick = true;
	}
	pthread_mutex_unlock(&r->p->mu);
}

void session_lead(struct process *p, struct session *s, int64_t deadline)
{
	struct control_wait r = { .wait = { .bell = &p->bell, .look = look_from_reading }, .p = p,
				  .s = s, .by = deadline };
	char why[WHY_BYTES] = "";
	struct span line;
	bool ok;

	s->has_leader = true;
	pthread_mutex_unlock(&p->mu);
	ok = wire_read(&s->wire, &r.wait, &line, why);
	pthread_mutex_lock(&p->mu);
	if (!ok || !answer_deliver(p, s, line, why))
		session_lose(p, s, why);
	s->has_leader = false;
}

void session_wake_leader(struct session *s)
{
	struct call *c = s->calls;

	while (c && !c->parked)
		c = c->next;
	if (c && !s->has_leader)
		pthread_cond_signal(&c->woken);
}

/* Waits until the call is done. mu is held. */
static void await(struct process *p, struct session *s, struct call *c)
{
	while (!c->done) {
		if (s->has_leader) {
			c->parked = true;
			pthread_cond_wait(&c->woken, &p->mu);
			c->parked = false;
		} else {
			session_lead(p, s, 0);
		}
	}
}

/* --- sending --- */

/* A sender's wait calls this function before each sleep (wait.h). If the sender's call is
 * cancelled, the wait ends at cancel_by. If there is no leader, the function wakes a thread to
 * lead, because tlsd may receive nothing more until somebody reads its answers. */
static void look_from_sending(struct wait *w)
{
	struct control_wait *out = (struct control_wait *)w;

	pthread_mutex_lock(&out->p->mu);
	note_cancels(out->p, out->s);
	w->deadline = out->c->cancel_by;
	session_wake_leader(out->s);
	pthread_mutex_unlock(&out->p->mu);
}

/* Writes the request. If the request closes a handle, a $/cancelRequest for each call that waits on
 * this handle comes before it. */
static void write_request(struct text *out, const struct session *s, const struct call *c)
{
	for (const struct call *w = c->method->closes ? s->calls : NULL; w; w = w->next) {
		if (w->handle != c->handle || w->method->waits_on != c->method->closes || !w->sent)
			continue;
		text_put(out, CANCEL_LINE, w->id);
	}
	text_put(out, "{\"jsonrpc\":\"2.0\",\"id\":%" PRId64 ",\"method\":\"%s\",\"params\":%s}\n",
		 c->id, c->method->name, c->params);
}

/* Sends the lines. The call must have the turn to send, and mu must not be held. */
static void send_lines(struct process *p, struct session *s, const struct text *lines,
		       struct call *c)
{
	struct control_wait out = { .wait = { .bell = &p->bell, .look = look_from_sending },
				    .p = p, .s = s, .c = c };
	struct owned *const pass[2] = { c->pass_first, c->pass };

	if (wire_send(&s->wire, lines->bytes, lines->len, pass, &out.wait))
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
	return fail(p, "cancelled", call_op(c), c->handle, "cancelled by the caller");
}

/* Sets an error that tlsd has sent. tlsd's text begins with the name of the method. If c->op is
 * set, c->op replaces this name, because the host knows its call by the name c->op. p may be
 * NULL. */
static void set_tlsds_error(struct process *p, const struct call *c, const char *message)
{
	size_t len = c->op ? strlen(c->method->name) : 0;
	bool rename = len > 0 && strncmp(message, c->method->name, len) == 0;

	if (!p)
		return;
	pthread_mutex_lock(&p->mu);
	error_set(p, c->kind, rename ? c->op : "", message + (rename ? len : 0));
	pthread_mutex_unlock(&p->mu);
}

/* Returns 0 if the call has succeeded. Otherwise returns -1 and sets the last error (error.h). A
 * QUIET method sets it only if the call was cancelled. */
static int conclude(struct process *p, const struct session *s, struct call *c)
{
	struct process *to = c->method->flags & QUIET && !c->cancel_by ? NULL : p;
	char *message = c->text;

	if (!c->lost && !c->failed && (c->method->result <= NUMBER || c->text))
		return 0;
	c->text = NULL;
	if (c->lost && c->cancel_by)
		session_cancelled(p, c);
	else if (c->lost)
		fail(to, "lost", call_op(c), c->handle, "lost: %s", s->why);
	else if (message)
		set_tlsds_error(to, c, message);
	else
		fail(to, "limit", call_op(c), 0, "out of memory");
	free(message);
	return -1;
}

/* Adds the call to the session's calls. mu is held. */
static void enter(struct session *s, struct call *c)
{
	c->id = s->next_id++;
	c->done = c->lost = s->lost;
	c->failed = c->sent = c->cancel_sent = false;
	c->cancel_by = 0;
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
	session_wake_leader(s);
}

/* Sends the call when its turn has come, unless the call is done. mu is held before and after, but
 * not during the sending. Returns false if the call was cancelled before its turn, so that it was
 * not sent. */
static bool send_in_turn(struct process *p, struct session *s, struct call *c)
{
	struct text lines = { 0 };

	if (c->method->closes) {
		turn_take_always(p, &s->sending);
		/* If note_cancels saw the cancel before the call was in s->calls, it has not marked
		 * the call. The old value of cancels_seen makes it look at all calls again. */
		if (process_cancelled(p, c->began))
			s->cancels_seen = c->began;
	} else if (!turn_take(p, &s->sending, c->began)) {
		return false;
	}
	if (!c->done) {
		write_request(&lines, s, c);
		c->sent = !lines.failed;
		c->done = c->failed = lines.failed; /* no text: conclude says "out of memory" */
	}
	if (c->sent) {
		pthread_mutex_unlock(&p->mu);
		send_lines(p, s, &lines, c);
		pthread_mutex_lock(&p->mu);
	}
	free(lines.bytes);
	turn_give_back(&s->sending);
	if (s->cancelling > 0 && s->has_leader)
		bell_ring(&p->bell); /* the leader may have a cancel request to send */
	return true;
}

int session_call(struct process *p, struct session *s, struct call *c)
{
	bool had_turn;

	pthread_mutex_lock(&p->mu);
	enter(s, c);
	had_turn = send_in_turn(p, s, c);
	owned_close(c->pass);
	c->pass = NULL;
	if (c->sent)
		await(p, s, c);
	leave(s, c);
	pthread_mutex_unlock(&p->mu);
	return had_turn ? conclude(p, s, c) : session_cancelled(p, c);
}
