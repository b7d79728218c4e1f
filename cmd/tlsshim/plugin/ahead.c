#define _GNU_SOURCE
#include "ahead.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "session.h"
#include "text.h"

/* --- streams --- */

static struct stream **place(struct session *s, int64_t handle)
{
	struct stream **link = &s->streams[(uint64_t)handle % STREAM_BUCKETS];

	while (*link && (*link)->handle != handle)
		link = &(*link)->next;
	return link;
}

struct stream *stream_find(struct session *s, int64_t handle)
{
	struct stream *st = *place(s, handle);

	if (st)
		st->users++;
	return st;
}

struct stream *stream_make(struct session *s, int64_t handle)
{
	struct stream **link = place(s, handle);

	if (!*link) {
		*link = calloc(1, sizeof **link);
		if (!*link)
			return NULL;
		(*link)->handle = handle;
		(*link)->most = s->wire.shared ? AHEAD_WRITES_SHARED : AHEAD_WRITES;
		turn_init(&(*link)->reading);
	}
	(*link)->users++;
	return *link;
}

static void free_unused(struct stream *st)
{
	if (!st->closed || st->users > 0 || st->writes > 0)
		return;
	turn_destroy(&st->reading);
	free(st->error);
	free(st->data);
	free(st);
}

void stream_release(struct stream *st)
{
	if (!st)
		return;
	st->users--;
	free_unused(st);
}

void stream_close(struct session *s, struct stream *st)
{
	struct stream **link = place(s, st->handle);

	if (st->closed)
		return;
	*link = st->next;
	st->closed = true;
	free_unused(st);
}

void stream_close_all(struct session *s)
{
	for (int i = 0; i < STREAM_BUCKETS; i++)
		while (s->streams[i])
			stream_close(s, s->streams[i]);
}

void stream_make_ready(struct session *s, int64_t handle)
{
	struct stream *st = stream_make(s, handle);

	if (st)
		st->ready = true;
	stream_release(st);
}

/* --- Writes --- */

bool ahead_has_room(const struct stream *st, size_t len)
{
	return st->writes == 0 || (st->writes < st->most && st->bytes + len <= AHEAD_BYTES);
}

bool ahead_is_low(const struct stream *st)
{
	return st->writes <= st->most / 2 && st->bytes <= AHEAD_BYTES / 2;
}

/* --- room in the session --- */

static unsigned most_ahead(const struct session *s)
{
	return s->wire.shared ? SESSION_AHEAD_WRITES_SHARED : SESSION_AHEAD_WRITES;
}

static bool reserve(struct session *s, struct call *c)
{
	if (s->ahead >= most_ahead(s) || s->ahead_bytes + c->blob_len > SESSION_AHEAD_BYTES)
		return false;
	s->ahead++;
	s->ahead_bytes += c->blob_len;
	c->reserved = true;
	return true;
}

/* Lets the oldest in the queue go on, if there is room for many Writes and it is its turn. */
static void grant(struct session *s)
{
	struct call *c = s->queue;

	if (!c || s->granted || s->ahead > most_ahead(s) / 2 || s->ahead_bytes > SESSION_AHEAD_BYTES / 2)
		return;
	s->granted = true;
	ahead_dequeue(s, c);
}

static void give_back(struct session *s, struct call *c)
{
	if (!c->reserved)
		return;
	c->reserved = false;
	s->ahead--;
	s->ahead_bytes -= c->blob_len;
	grant(s);
}

static void queue_up(struct process *p, struct session *s, struct call *c)
{
	bool first = !s->queue;

	if (first) {
		s->queue_end = &s->queue;
		s->progress = true;
		s->progress_at = now_ms();
	}
	*s->queue_end = c;
	s->queue_end = &c->behind;
	if (first && s->led)
		process_ring(p); /* the leader looks at every tick now */
}

void ahead_dequeue(struct session *s, struct call *c)
{
	struct call **link = &s->queue;

	while (*link && *link != c)
		link = &(*link)->behind;
	if (!*link)
		return;
	*link = c->behind;
	if (s->queue_end == &c->behind)
		s->queue_end = link;
	c->done = true;
	pthread_cond_signal(&c->woken);
}

void ahead_dequeue_all(struct session *s)
{
	while (s->queue)
		ahead_dequeue(s, s->queue);
}

void ahead_look(struct session *s)
{
	int64_t now = s->queue ? now_ms() : 0;

	if (!s->queue || now < s->progress_at + TICK_MS)
		return;
	if (!s->progress) {
		s->stuck = true;
		ahead_dequeue_all(s);
	}
	s->progress = false;
	s->progress_at = now;
}

/* --- answers to Writes --- */

bool ahead_go(struct session *s, struct stream *st, struct call *c)
{
	struct call *ahead = c->reserved && c->begun && !c->done && !c->cancel_by ? malloc(sizeof *ahead) : NULL;

	if (!ahead) {
		give_back(s, c);
		return false;
	}
	*ahead = (struct call){ .method = c->method, .handle = c->handle, .blob_len = c->blob_len, .has_blob = true,
		.id = c->id, .begun = true, .ahead = st, .reserved = true };
	c->reserved = false;
	calls_add(s, ahead);
	st->writes++;
	st->bytes += c->blob_len;
	return true;
}

/* The peer may be silent because it has not got what was to be written, and a Read
 * would wait for ever. So it ends, and raises the Write's error. */
static void end_reads(struct session *s, const struct stream *st)
{
	for (struct call *c = s->calls; c; c = c->next)
		if (c->handle == st->handle && c->method->result == BLOB)
			session_cancel(s, c);
}

void ahead_end(struct session *s, struct call *c, const struct answer *a)
{
	struct stream *st = c->ahead;

	calls_remove(s, c);
	st->writes--;
	st->bytes -= c->blob_len;
	s->progress = true;
	s->stuck = false;
	give_back(s, c);
	free(c);
	if (a && a->error.at && !st->error) {
		st->error = json_text(a->error);
		if (!st->error)
			st->error = strdup("tls.Write: out of memory");
		end_reads(s, st);
	}
	for (struct call *w = s->calls; st->draining > 0 && ahead_is_low(st) && w; w = w->next) {
		if (w->drains != st || (w->method->closes && st->writes > 0))
			continue;
		w->done = true;
		pthread_cond_signal(&w->woken);
	}
	free_unused(st);
}

/* --- what comes before and after a call --- */

/* The error of a Write whose handle is closed before it was sent; NULL if there is no memory. */
static char *closed_meanwhile(const struct call *c)
{
	char text[128] = "";

	text_add(text, sizeof text, "%s: handle %" PRId64 ": the handle was closed while the call waited", c->method->name, c->handle);
	return strdup(text);
}

static void wait_for_answers(struct process *p, struct session *s, struct call *wait)
{
	wait->drains->draining++;
	session_wait(p, s, wait);
	wait->drains->draining--;
}

/* What a wait has come to, for the sake of which the call waited. False if the call must not go on, and is
 * then done. */
static bool goes_on(struct call *c, const struct call *wait)
{
	c->lost = wait->lost;
	c->failed = wait->failed;
	c->cancel_by = wait->cancel_by;
	c->done = c->lost || c->failed || c->cancel_by;
	if (c->failed)
		c->text = closed_meanwhile(c);
	return !c->done;
}

/* Waits until so little runs ahead on the connection that there is room. */
static bool drain(struct process *p, struct session *s, struct stream *st, struct call *c)
{
	struct call wait = { .method = c->method, .handle = c->handle, .began = c->began, .drains = st };

	if (process_cancelled(p, c->began))
		return false;
	wait_for_answers(p, s, &wait);
	return goes_on(c, &wait);
}

/* Waits until there is room in the session, unless nothing makes room. */
static bool await_room(struct process *p, struct session *s, struct call *c)
{
	/* A large one would wait until nothing else runs ahead, which need not come. */
	while (!reserve(s, c) && !s->stuck && !s->lost && c->blob_len <= SESSION_AHEAD_BYTES / 2) {
		struct call wait = { .method = c->method, .handle = c->handle, .began = c->began, .queues = true };

		if (process_cancelled(p, c->began))
			return false;
		queue_up(p, s, &wait);
		session_wait(p, s, &wait);
		ahead_dequeue(s, &wait);
		s->granted = false;
		if (!goes_on(c, &wait)) {
			grant(s);
			return false;
		}
	}
	return true;
}

/* Whether a thread waits in a Write of the handle. */
static bool write_waits(const struct session *s, int64_t handle)
{
	const struct call *c = s->calls;

	while (c && !(c->handle == handle && c->method->flags & RUNS_AHEAD))
		c = c->next;
	return c != NULL;
}

/* Ends the Writes of a handle that wait for room, since it is being closed. */
static void end_drains(struct session *s, const struct stream *st)
{
	for (struct call *c = s->calls; c; c = c->next) {
		if (c->drains != st && !(c->queues && c->handle == st->handle))
			continue;
		c->failed = true;
		ahead_dequeue(s, c);
		c->done = true;
		pthread_cond_signal(&c->woken);
	}
}

bool ahead_make_way(struct process *p, struct session *s, struct stream *st, struct call *c)
{
	if (c->method->closes) {
		/* The Writes that run ahead are to arrive. But a Close also ends what waits. */
		bool waits = write_waits(s, c->handle);

		c->patient = st->writes > 0 && !waits;
		if (waits) {
			end_drains(s, st);
			process_ring(p); /* the leader may be one of them */
		}
		return true;
	}
	if (!st->error && c->method->flags & RUNS_AHEAD && !ahead_has_room(st, c->blob_len) && !drain(p, s, st, c))
		return false;
	if (!st->error && c->may_run_ahead && !await_room(p, s, c))
		return false;
	c->done = c->failed = st->error != NULL;
	if (c->done)
		give_back(s, c);
	return !c->done;
}

void ahead_collect(struct process *p, struct session *s, struct stream *st, struct call *c)
{
	struct call wait = { .method = c->method, .handle = c->handle, .began = c->began, .drains = st };

	if (st->writes == 0 || c->lost)
		return;
	wait_for_answers(p, s, &wait);
	c->lost = wait.lost;
}

void ahead_raise(struct stream *st, struct call *c)
{
	if (!st->error || c->lost || !(c->failed || (c->method->closes && c->begun)))
		return;
	free(c->text);
	c->text = st->error;
	st->error = NULL;
	c->failed = true;
}

/* --- Reads --- */

/* Gives the host of what was read ahead as much as it wants. */
static void give(struct session *s, struct stream *st, struct call *c)
{
	size_t left = st->have - st->used, n = c->into_cap < left ? c->into_cap : left;

	memcpy(c->into, st->data + st->used, n);
	c->number = (int64_t)n;
	st->used += n;
	if (st->used < st->have)
		return;
	free(s->spare);
	s->spare = st->data;
	st->data = NULL;
	st->used = st->have = 0;
}

int stream_read(struct process *p, struct session *s, struct call *c)
{
	struct call more = *c;
	struct stream *st;
	char params[64] = "", *room = NULL;
	int result = 0;

	pthread_mutex_lock(&p->mu);
	st = stream_make(s, c->handle);
	if (!st || !turn_take(p, &st->reading, c->began)) {
		stream_release(st);
		pthread_mutex_unlock(&p->mu);
		return st ? call_cancelled(p, c) : (int)process_fail(p, "%s: out of memory", c->method->name);
	}
	if (st->data && !st->error) {
		give(s, st, c);
		goto out;
	}
	if (!st->data && c->into_cap < READ_AHEAD_BYTES) {
		room = s->spare ? s->spare : malloc(READ_AHEAD_BYTES);
		s->spare = NULL;
	}
	if (room) {
		more.into = room;
		more.into_cap = READ_AHEAD_BYTES;
	}
	pthread_mutex_unlock(&p->mu);

	text_add(params, sizeof params, "[%" PRId64 ",%zu]", more.handle, more.into_cap);
	more.params = params;
	result = session_call(p, s, &more); /* which also raises the error of a Write */

	pthread_mutex_lock(&p->mu);
	c->number = more.number;
	if (room) {
		st->data = room;
		st->have = result == 0 ? (size_t)more.number : 0;
		give(s, st, c);
	}
out:
	turn_give_back(&st->reading);
	stream_release(st);
	pthread_mutex_unlock(&p->mu);
	return result;
}
