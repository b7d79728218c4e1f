#define _POSIX_C_SOURCE 200809L
#include "connection.h"

#include <errno.h>

#include "client.h"
#include "text.h"
#include "watch.h"

static const struct method
	handshake = { .name = "tls.Handshake", .waits_on = CONNECTION },
	accept_ = { .name = "tls.Accept", .texts = { { "host", PLAIN } }, .number = true,
		    .result = NUMBER, .flags = MAKES_HANDLE, .waits_on = CONTEXT };

bool connection_make_pair(struct process *p, struct call *c, struct owned *ends[2],
			  const char *purpose)
{
	if (owned_socketpair(ends)) {
		c->pass = ends[1];
		return true;
	}
	fail(p, "limit", call_op(c), c->handle, "limit: no descriptor for the %s: %s%s",
	     purpose, errno_text(errno),
	     errno == EMFILE ? "; raise RLIMIT_NOFILE or close others" : "");
	return false;
}

/* Stores our end of a pair (the parameter ours) as the data channel of the connection. Closes our
 * end if the connection has a data channel already, if the session is lost, or if there is no
 * memory. Only a lack of memory is an error. */
static int attach(struct process *p, const char *op, int64_t handle, struct owned *ours)
{
	struct channel *ch;
	bool lost;

	pthread_mutex_lock(&p->mu);
	lost = !p->session || handle < p->first; /* the next call reports the loss */
	ch = session_handle(p, handle, true);
	if (ch && !ch->fd) {
		ch->fd = ours;
		ours = NULL;
		watch_changed(p, ch);
	}
	pthread_mutex_unlock(&p->mu);
	owned_close(ours);
	return ch || lost ? 0 : fail(p, "limit", op, 0, "out of memory");
}

static bool has_pair(struct process *p, int64_t handle)
{
	struct channel *ch;
	bool has;

	pthread_mutex_lock(&p->mu);
	ch = session_handle(p, handle, false);
	has = ch && ch->fd;
	pthread_mutex_unlock(&p->mu);
	return has;
}

/* Notes that a handshake begins or has ended, for tls_Wait. */
static void note_handshake(struct process *p, int64_t handle, bool going_on)
{
	struct channel *ch;

	pthread_mutex_lock(&p->mu);
	ch = session_handle(p, handle, false);
	if (ch) {
		ch->handshaking = going_on;
		watch_changed(p, ch);
	}
	pthread_mutex_unlock(&p->mu);
}

static int do_handshake(struct process *p, struct call *c)
{
	struct owned *ends[2];

	if (has_pair(p, c->handle))
		return client_run(p, c);
	if (!connection_make_pair(p, c, ends, "data of the connection"))
		return -1;
	if (client_run(p, c) == 0)
		return attach(p, handshake.name, c->handle, ends[0]);
	owned_close(ends[0]);
	/* If another thread has done the handshake meanwhile, tlsd has refused our descriptor. So
	 * the call is repeated without a descriptor. */
	if (!process_cancelled(p, c->began) && has_pair(p, c->handle))
		return client_run(p, c);
	return -1;
}

int64_t connection_handshake(struct process *p, struct call *c)
{
	int result;

	if (!p)
		return -1;
	c->method = &handshake;
	note_handshake(p, c->handle, true);
	result = do_handshake(p, c);
	note_handshake(p, c->handle, false);
	return result;
}

int64_t connection_accept(struct process *p, struct call *c)
{
	struct owned *ends[2] = { NULL, NULL };
	struct channel *ctx;
	bool later;

	c->method = &accept_;
	if (!p)
		return -1;
	pthread_mutex_lock(&p->mu);
	ctx = session_handle(p, c->handle, false);
	later = ctx && ctx->handshake_later; /* tls_Handshake will make the pair */
	pthread_mutex_unlock(&p->mu);
	if (!later && !connection_make_pair(p, c, ends, "data of the connection"))
		return -1;
	if (client_run(p, c) < 0) {
		owned_close(ends[0]);
		return -1;
	}
	return later || attach(p, accept_.name, c->number, ends[0]) == 0 ? c->number : -1;
}
