#define _POSIX_C_SOURCE 200809L
#include "session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "text.h"

enum { HELLO_WAIT_MS = 10000 };

#define OTHER_USER "the effective user of this program has changed"

struct session *session_make(struct process *p, struct owned *sock)
{
	struct session *s = calloc(1, sizeof *s);

	if (!s) {
		owned_close(sock);
		return NULL;
	}
	s->wire.sock = sock;
	s->first = p->first;
	s->cancels_seen = atomic_load(&p->cancels);
	s->euid = geteuid();
	s->refs = 1;
	s->next_id = HELLO_ID + 1;
	turn_init(&s->sending);
	return s;
}

bool session_greet(struct session *s, struct wait *w, char why[WHY_BYTES])
{
	struct text line = { 0 };
	struct span answer;

	text_put(&line, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"tls.Hello\",\"params\":"
		 "{\"version\":1,\"capabilities\":[\"data\"],\"firstHandle\":%" PRId64 "}}\n",
		 HELLO_ID, s->first);
	w->deadline = now_ms() + HELLO_WAIT_MS;
	if (!line.failed) /* if the sending fails, wire_read says why */
		wire_send(&s->wire, line.bytes, line.len, NULL, w);
	free(line.bytes);
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

void session_drop(struct process *p, struct session *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&p->mu);
	session_release(p, s);
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

/* Ends the session, and gives mu up for a moment. */
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

struct channel *session_handle(struct process *p, int64_t handle, bool make)
{
	if (!p->session || handle < p->first)
		return NULL;
	return make ? channel_make(&p->session->channels, handle) :
		      channel_find(&p->session->channels, handle);
}
