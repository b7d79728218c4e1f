/*
 * session.c - a libFuzzer target for the plugin's session
 *
 * Calls of each kind wait for answers. The input is what tlsd sends. The plugin's own
 * function session_lead reads it. In a program, this function runs in the thread that reads
 * the answers for all threads. At the end of the input each call must have ended: with a
 * result of the right type, or with an error. The first byte of the input has the flags
 * GREETS, QUEUED and CANCELS.
 */
#include "../../../../cmd/tlsshim/plugin/exchange.c"

#include <stddef.h>
#include <sys/socket.h>

enum {
	GREETS = 1,      /* the answer to Hello comes first */
	QUEUED = 2,      /* the last call has not been sent yet */
	CANCELS = 4,     /* tls_Cancel is called after as many answers as the upper four bits say */
	MOST = 64 << 10, /* the longest input; the socket has room for it before anybody reads */
};

static const struct method kinds[] = {
	{ .name = "tls.NewClient", .result = NUMBER, .flags = OPENS | MAKES_HANDLE },
	{ .name = "tls.Status", .result = OBJECT },
	{ .name = "tls.Handshake", .waits_on = CONNECTION },
	{ .name = "tls.PeerCertSubject", .result = TEXT },
	{ .name = "tls.Backend", .result = TEXT, .flags = OPENS | QUIET },
	{ .name = "tls.Read", .flags = FAILS, .waits_on = CONNECTION },
	{ .name = "tls.Close", .closes = CONNECTION },
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void must(bool holds)
{
	if (!holds)
		abort();
}

static bool all_done(const struct call *calls)
{
	for (int i = 0; i < KINDS; i++)
		if (calls[i].sent && !calls[i].done)
			return false;
	return true;
}

/* What use.c does with the answer to tls.Status. */
static void read_status(const char *text)
{
	struct span said = { text, strlen(text) }, message;

	must(json_valid(said));
	json_is(json_member(said, "read"), "\"end\"");
	message = json_member(json_member(said, "readError"), "message");
	if (json_is_string(message)) {
		char *error = json_text(message);
		must(error && utf8_valid(error, strlen(error)));
		free(error);
	}
}

static void check(struct process *p, const struct session *s, struct call *c)
{
	p->error[0] = '\0';
	if (!c->sent && !c->done) /* a call that was not sent need not have ended */
		return;
	if (conclude(p, s, c) < 0) {
		must(c->method->flags & QUIET || c->failed || *p->error);
		must(utf8_valid(p->error, strlen(p->error)));
		return;
	}
	must(c->sent && !(c->method->flags & FAILS));
	switch (c->method->result) {
	case NOTHING:
		must(c->number == 0);
		break;
	case NUMBER:
		must(c->number >= 0 && c->number <= INT32_MAX);
		must(!(c->method->flags & MAKES_HANDLE) || c->number >= s->first);
		break;
	case TEXT:
		must(utf8_valid(c->text, strlen(c->text)));
		break;
	case OBJECT:
		read_status(c->text);
		break;
	}
}

static void look_no_further(struct wait *w)
{
	(void)w;
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
	struct process *p;
	struct visit v;
	struct owned *ends[2];
	int flags, answers = 0;
	char why[WHY_BYTES] = "";
	struct wait greet = { .look = look_no_further };
	bool greeted;

	if (size < 1 || size > MOST)
		return 0;
	flags = data[0];
	visit_begin(&v);
	p = v.process;
	must(p && owned_socketpair(ends));
	greet.bell = &p->bell;
	p->first = 1;
	atomic_store(&p->highest, 0);
	s = session_make(p, ends[0]);
	must(s != NULL);
	feed(owned_fd(ends[1]), data + 1, size - 1);
	greeted = !(flags & GREETS) || session_greet(s, &greet, why);
	must(utf8_valid(why, strlen(why)) && (greeted || *why));

	pthread_mutex_lock(&p->mu);
	p->session = s;
	s->refs++;
	if (!greeted)
		session_lose(p, s, why);
	for (int i = 0; i < KINDS; i++) {
		calls[i] = (struct call){ .method = &kinds[i], .handle = kinds[i].flags & OPENS ? 0
			: 1, .began = s->cancels_seen };
		enter(s, &calls[i]);
		calls[i].sent = !s->lost && (i < KINDS - 1 || !(flags & QUEUED));
	}
	for (; !all_done(calls); answers++) {
		if (flags & CANCELS && answers == flags >> 4)
			process_cancel();
		session_lead(p, s, 0);
	}
	must(p->session == (s->lost ? NULL : s));
	for (int i = 0; i < KINDS; i++) {
		must(calls[i].sent || calls[i].done == s->lost);
		leave(s, &calls[i]);
	}
	must(s->cancelling == 0 && !s->calls);
	if (!s->lost)
		session_lose(p, s, "the end");
	pthread_mutex_unlock(&p->mu);

	for (int i = 0; i < KINDS; i++) {
		check(p, s, &calls[i]);
		free(calls[i].text);
	}
	pthread_mutex_lock(&p->mu);
	session_release(p, s);
	owned_close(ends[1]);
	visit_end(&v);
	return 0;
}
