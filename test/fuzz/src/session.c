/*
 * session.c - a libFuzzer target: any bytes as tlsd's side of a session with
 * calls of each kind in flight, and a Write that runs ahead.
 *
 * It leads as a thread of the plugin would, with the plugin's own code, until the
 * bytes are over; then each call has ended, with what its method can give or as
 * lost. The first byte of the input says how things stand: see flags.
 */
#include "../../../cmd/tlsshim/plugin/session.c"

#include <stddef.h>

enum {
	AGREED = 1,     /* Hello has been answered */
	QUEUED = 2,     /* the last call has not been sent yet */
	CANCELS = 4,    /* tls_Cancel is called after as many answers as the upper four bits say */
	SHARED = 8,     /* the bytes come through shared memory; with all of the upper bits, more than fit in are said to be there */
	BLOB_LEN = 5,   /* of the Write */
	MOST = 64 << 10, /* bytes of input, which the socket takes without a reader */
};

static const struct method kinds[] = {
	{ .name = "tls.NewClient", .flags = OPENS | MAKES_HANDLE },
	{ .name = "tls.Read", .result = BLOB, .waits_on = CONNECTION },
	{ .name = "tls.Write", .waits_on = CONNECTION },
	{ .name = "tls.PeerCertSubject", .result = TEXT },
	{ .name = "tls.Backend", .result = TEXT, .flags = OPENS | QUIET },
	{ .name = "tls.Read", .result = BLOB, .waits_on = CONNECTION },
	{ .name = "tls.Close", .closes = CONNECTION },
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

static const size_t room[KINDS] = { [1] = 64, [5] = 4096 };

static void must(bool holds)
{
	if (!holds)
		abort();
}

static bool all_done(const struct session *s, const struct call *calls)
{
	if (!s->lost && (!s->agreed || s->ahead > 0))
		return false;
	for (int i = 0; i < KINDS; i++)
		if (calls[i].begun && !calls[i].done)
			return false;
	return true;
}

/* Makes a Write that runs ahead, as session_call does. */
static struct stream *run_ahead(struct process *p, struct session *s)
{
	struct call c = { .method = &kinds[2], .handle = 1, .has_blob = true, .blob_len = BLOB_LEN, .began = s->born };
	struct stream *st = stream_make(s, 1);

	must(st != NULL);
	enter(s, &c);
	c.begun = c.reserved = true;
	s->ahead++;
	s->ahead_bytes += c.blob_len;
	must(ahead_go(s, st, &c));
	leave(p, s, &c);
	return st;
}

static void check(struct process *p, const struct session *s, struct call *c)
{
	bool waited = c->begun || c->done;

	p->error[0] = '\0';
	if (!waited) /* nobody may have ended it */
		return;
	if (conclude(p, s, c) < 0) {
		must(c->method->flags & QUIET || c->failed || *p->error);
		must(utf8_valid(p->error, strlen(p->error)));
		return;
	}
	must(c->begun && s->agreed);
	switch (c->method->result) {
	case NUMBER:
		must(c->number >= 0 && c->number <= INT32_MAX);
		must(!c->has_blob || c->number == BLOB_LEN);
		must(!(c->method->flags & MAKES_HANDLE) || c->number >= s->first);
		break;
	case TEXT:
		must(utf8_valid(c->text, strlen(c->text)));
		break;
	case BLOB:
		must(c->number >= 0 && (size_t)c->number <= c->into_cap);
		break;
	}
}

static void feed_shared(struct session *s, int fd, const uint8_t *data, size_t size, bool too_much)
{
	must(s->wire.rings.mem != NULL);
	s->wire.shared = true;
	memcpy(s->wire.rings.in.data, data, size);
	atomic_store(s->wire.rings.in.head, (uint32_t)size + (too_much ? RING_BYTES + 1 : 0));
	shutdown(fd, SHUT_WR);
}

static void feed(int fd, const uint8_t *data, size_t size)
{
	while (size > 0) {
		ssize_t n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		must(n > 0);
		data += n;
		size -= (size_t)n;
	}
	shutdown(fd, SHUT_WR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct call calls[KINDS];
	struct session *s;
	struct stream *st;
	struct process *p;
	struct visit v;
	int fds[2], flags, answers = 0;

	if (size < 1 || size > MOST)
		return 0;
	flags = data[0];
	visit_begin(&v);
	p = v.process;
	must(p && process_hang_bell(p) && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	p->first = 1;
	atomic_store(&p->highest, 0);
	s = session_make(p, fds[0], "fuzz", atomic_load(&p->cancels));
	must(s != NULL);
	if (flags & SHARED)
		feed_shared(s, fds[1], data + 1, size - 1, flags >> 4 == 15);
	else
		feed(fds[1], data + 1, size - 1);

	pthread_mutex_lock(&p->mu);
	p->session = s;
	s->refs++;
	s->greeted = true;
	s->agreed = flags & AGREED;
	for (int i = 0; i < KINDS; i++) {
		calls[i] = (struct call){ .method = &kinds[i], .handle = kinds[i].flags & OPENS ? 0 : 1, .began = s->born };
		calls[i].has_blob = i == 2;
		calls[i].blob_len = i == 2 ? BLOB_LEN : 0;
		calls[i].into_cap = room[i];
		calls[i].into = room[i] ? malloc(room[i]) : NULL; /* of its exact size, for the address sanitizer */
		enter(s, &calls[i]);
		calls[i].begun = i < KINDS - 1 || !(flags & QUEUED);
	}
	st = run_ahead(p, s);
	for (; !all_done(s, calls); answers++) {
		if (flags & CANCELS && answers == flags >> 4)
			process_cancel();
		lead(p, s, NULL, 0);
	}
	must(p->session == (s->lost ? NULL : s));
	for (int i = 0; i < KINDS; i++) {
		must(calls[i].begun || calls[i].done == s->lost);
		leave(p, s, &calls[i]);
	}
	must(s->waiting == 0 && s->cancelling == 0 && (s->lost || !s->calls));
	must(!st->error || utf8_valid(st->error, strlen(st->error)));
	stream_release(st);
	if (!s->lost)
		lose(p, s, "the end");
	pthread_mutex_unlock(&p->mu);

	for (int i = 0; i < KINDS; i++) {
		check(p, s, &calls[i]);
		free(calls[i].text);
		free(calls[i].into);
	}
	session_release(p, s);
	close(fds[1]);
	visit_end(&v, 0);
	return 0;
}
