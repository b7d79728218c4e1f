#define _POSIX_C_SOURCE 200809L
#include "connection.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "text.h"
#include "use.h"
#include "watch.h"

static const struct method
	handshake = { .name = "tls.Handshake", .waits_on = CONNECTION },
	accept_ = { .name = "tls.Accept", .flags = MAKES_HANDLE, .waits_on = CONTEXT },
	set_timeout = { .name = "tls.SetTimeout" },
	shutdown_ = { .name = "tls.Shutdown", .waits_on = CONNECTION },
	close_ = { .name = "tls.Close", .closes = CONNECTION },
	close_context = { .name = "tls.CloseServerContext", .closes = CONTEXT },
	set_option = { .name = "tls.SetOption" },
	signal_ = { .name = "tls.Signal" };

/* A pair of which the call sends one end; false and the error set if there can be none. */
static bool make_pair(struct process *p, struct call *c, struct owned *ends[2])
{
	if (owned_socketpair(ends)) {
		c->pass = ends[1];
		return true;
	}
	process_fail(p, "limit", "%s: handle %" PRId64 ": limit: no descriptor for the %s: "
		     "%s%s", c->op ? c->op : c->method->name, c->handle,
		     c->method == &signal_ ? "context" : "data of the connection",
		     errno_text(errno),
		     errno == EMFILE ? "; raise RLIMIT_NOFILE or close others" : "");
	return false;
}

/* Makes our end the data channel of a connection; or closes it. A connection that is unshaken does
 * not use it before tls_Handshake. */
static int attach(struct process *p, const char *op, int64_t handle, struct owned *end,
		  bool unshaken)
{
	struct channel *ch = NULL;
	bool lost;

	pthread_mutex_lock(&p->mu);
	lost = !p->session || handle < p->first; /* the next call says so */
	if (!lost)
		ch = channel_make(&p->session->channels, handle);
	if (ch && !ch->fd) {
		ch->fd = end;
		ch->unshaken = unshaken;
		end = NULL;
		watch_changed(p, ch);
	}
	channel_release(ch);
	pthread_mutex_unlock(&p->mu);
	owned_close(end);
	if (!ch && !lost)
		return (int)process_fail(p, "limit", "%s: out of memory", op);
	return 0;
}

/* Whether the connection has its pair; -1 and the error set if the call ends there. */
static int has_pair(struct process *p, int64_t handle)
{
	struct use u;
	int has;

	if (use_raise_untold(p, handle) < 0 || !use_begin(&u, p, handshake.name, handle))
		return -1;
	has = u.ch && u.ch->fd;
	use_end(&u);
	return has;
}

/* A handshake whose pair has come with tls_Accept, or that was done before. */
static int handshake_with_pair(struct process *p, struct call *c)
{
	struct use u;

	if (client_run(p, c) < 0)
		return -1;
	if (!use_begin(&u, p, handshake.name, c->handle))
		return 0; /* the next call says that it is lost */
	pthread_mutex_lock(&p->mu);
	if (u.ch) {
		u.ch->unshaken = false;
		watch_changed(p, u.ch);
	}
	pthread_mutex_unlock(&p->mu);
	use_end(&u);
	return 0;
}

/* Notes that a handshake begins or has ended, for tls_Wait. */
static void note_shaking(struct process *p, int64_t handle, bool shaking)
{
	struct channel *ch;

	pthread_mutex_lock(&p->mu);
	ch = p->session && handle >= p->first ? channel_find(&p->session->channels, handle) : NULL;
	if (ch) {
		ch->shaking = shaking;
		watch_changed(p, ch);
	}
	channel_release(ch);
	pthread_mutex_unlock(&p->mu);
}

static int64_t shake(struct process *p, int64_t handle)
{
	struct call c = { .method = &handshake, .handle = handle };
	struct owned *ends[2];
	int has = has_pair(p, handle);

	if (has < 0 || (!has && !make_pair(p, &c, ends)))
		return -1;
	if (has)
		return handshake_with_pair(p, &c);
	if (client_run(p, &c) == 0)
		return attach(p, handshake.name, handle, ends[0], false);
	owned_close(ends[0]);
	/* Another thread may have done it, and then tlsd wants no second descriptor. */
	if (!process_cancelled(p, c.began) && has_pair(p, handle) == 1)
		return client_run(p, &c);
	return -1;
}

int64_t connection_handshake(struct process *p, int64_t handle)
{
	int64_t result;

	if (!p)
		return process_fail(p, "limit", "%s: out of memory", handshake.name);
	note_shaking(p, handle, true);
	result = shake(p, handle);
	note_shaking(p, handle, false);
	return result;
}

/* Whether the handshakes of a context's clients come later. */
static bool comes_later(struct process *p, int64_t ctx)
{
	struct channel *ch;
	bool later;

	pthread_mutex_lock(&p->mu);
	ch = p->session && ctx >= p->first ? channel_find(&p->session->channels, ctx) : NULL;
	later = ch && ch->later;
	channel_release(ch);
	pthread_mutex_unlock(&p->mu);
	return later;
}

int64_t connection_accept(struct process *p, int64_t ctx, const char *host, int32_t port)
{
	int64_t n = port;
	struct call c = { .method = &accept_, .handle = ctx, .texts = { host }, .n = &n };
	struct owned *ends[2];

	if (!p || !make_pair(p, &c, ends))
		return -1;
	if (client_run(p, &c) == 0)
		return attach(p, accept_.name, c.number, ends[0], comes_later(p, ctx)) < 0 ?
			       -1 :
			       c.number;
	owned_close(ends[0]);
	return -1;
}

/* Changes the state of a connection that has a channel, so that no Write comes behind
 * tls.Shutdown. False if that need not be asked for; then *result is the call's result. */
static bool begin_shutdown(struct use *u, int *result)
{
	bool go = false;

	*result = -1;
	if (!use_take_turn(u, &u->ch->writing))
		return false;
	if (u->ch->writing.state == ENDED_WELL) {
		*result = 0;
	} else if (use_can_write(u)) {
		u->ch->writing.state = ENDED_WELL;
		go = true;
	}
	use_give_turn_back(u);
	return go;
}

int64_t connection_shutdown(struct process *p, int64_t handle)
{
	struct call c = { .method = &shutdown_, .handle = handle, .is_part = true };
	struct use u;
	int result;

	if (!use_begin(&u, p, shutdown_.name, handle))
		return -1;
	c.began = u.began;
	if (!use_has_data(&u)) {
		result = client_run(p, &c);
	} else if (begin_shutdown(&u, &result)) {
		result = client_run(p, &c);
		pthread_mutex_lock(&p->mu);
		if (result < 0 && u.ch->writing.state == ENDED_WELL)
			u.ch->writing.state = OPEN; /* the next Write asks tlsd */
		pthread_mutex_unlock(&p->mu);
	}
	use_end(&u);
	return result;
}

/* Ends the calls of other threads on the channel. If a Write was cut short, tlsd must see that
 * before it sees the Close: it sends no close_notify then. */
static void begin_close(struct use *u)
{
	struct channel *ch = u->ch;
	bool cut;
	int fd;

	pthread_mutex_lock(&u->p->mu);
	ch->closing = true;
	turn_stir(&ch->reading.turn);
	if (ch->refs > 2) /* the table's and our own */
		bell_ring(&u->p->bell);
	/* After that the Write that was going on has ended. */
	if (turn_take(u->p, &ch->writing.turn, u->began))
		turn_give_back(&ch->writing.turn);
	cut = ch->writing.state == CUT_SHORT;
	pthread_mutex_unlock(&u->p->mu);
	fd = cut ? owned_fd(ch->fd) : -1;
	if (fd >= 0)
		shutdown(fd, SHUT_RDWR);
}

/* Forgets the channel. Returns the result of the Close. */
static int end_close(struct use *u, int result)
{
	pthread_mutex_lock(&u->p->mu);
	if (result == 0 && use_has_untold(u))
		result = use_raise(u, &u->ch->writing);
	u->ch->closing = true; /* a context's, too */
	channel_drop(&u->s->channels, u->ch);
	pthread_mutex_unlock(&u->p->mu);
	return result;
}

/* Takes the handle out of tls_Wait. */
static void stop_watching(struct use *u)
{
	pthread_mutex_lock(&u->p->mu);
	if (u->ch) {
		watch_changed(u->p, u->ch);
		u->ch->watched = false;
	}
	pthread_mutex_unlock(&u->p->mu);
}

static int64_t close_handle(struct process *p, const struct method *m, int64_t handle)
{
	struct call c = { .method = m, .handle = handle, .is_part = true };
	bool ready;
	struct use u;
	int result;

	if (!use_begin(&u, p, m->name, handle))
		return -1;
	c.began = u.began;
	ready = use_has_data(&u) && m->closes == CONNECTION;
	if (ready)
		begin_close(&u);
	/* A Close of the wrong kind is refused, and the handle stays. */
	if (u.ch && u.ch->context == (m->closes == CONTEXT))
		stop_watching(&u);
	result = client_run(p, &c);
	if (ready || (u.ch && result == 0))
		result = end_close(&u, result);
	use_end(&u);
	return result;
}

int64_t connection_close(struct process *p, int64_t handle)
{
	return close_handle(p, &close_, handle);
}

int64_t connection_close_context(struct process *p, int64_t ctx)
{
	return close_handle(p, &close_context, ctx);
}

int64_t connection_set_timeout(struct process *p, int64_t handle, int32_t milliseconds)
{
	int64_t n = milliseconds;
	struct call c = { .method = &set_timeout, .handle = handle, .n = &n };
	struct channel *ch;

	if (use_raise_untold(p, handle) < 0 || client_run(p, &c) < 0)
		return -1;
	pthread_mutex_lock(&p->mu);
	if (p->session && handle >= p->first) {
		ch = channel_make(&p->session->channels, handle);
		if (ch)
			ch->timeout = n;
		channel_release(ch);
	}
	pthread_mutex_unlock(&p->mu);
	return 0;
}

void connection_is_context(struct process *p, int64_t ctx)
{
	struct channel *ch;

	pthread_mutex_lock(&p->mu);
	ch = p->session && ctx >= p->first ? channel_make(&p->session->channels, ctx) : NULL;
	if (ch)
		ch->context = true;
	channel_release(ch);
	pthread_mutex_unlock(&p->mu);
}

/* Gives a context its descriptor, unless it has one: the first end of a pair, of which tlsd has a
 * copy. False and the error set if that fails. One thread at a time does it. */
static bool make_signal(struct use *u)
{
	struct call c = { .method = &signal_, .op = u->op, .handle = u->handle, .is_part = true,
			  .began = u->began };
	struct owned *ends[2];
	bool has, gone = false;

	if (!use_take_turn(u, &u->ch->reading))
		return false;
	has = u->ch->fd != NULL;
	pthread_mutex_unlock(&u->p->mu);
	if (!has && make_pair(u->p, &c, ends)) {
		c.lend = ends[0];
		has = client_run(u->p, &c) == 0;
		pthread_mutex_lock(&u->p->mu);
		gone = u->ch->closing || u->s->lost; /* by another thread */
		if (has && !gone) {
			u->ch->fd = ends[0];
			ends[0] = NULL;
			watch_changed(u->p, u->ch);
		}
		pthread_mutex_unlock(&u->p->mu);
		owned_close(ends[0]);
	}
	pthread_mutex_lock(&u->p->mu);
	use_give_turn_back(u);
	if (has && gone)
		use_fail_ended(u);
	return has && !gone;
}

int64_t connection_descriptor(struct process *p, int64_t handle)
{
	struct use u;
	int fd = -1;

	if (use_raise_untold(p, handle) < 0 || !use_begin(&u, p, "tls.Descriptor", handle))
		return -1;
	if (use_has_data(&u) || (u.ch && u.ch->context && make_signal(&u)))
		fd = use_fd(&u);
	else if (!u.ch || !u.ch->context)
		use_fail(&u, "state", "there is none before the handshake");
	use_end(&u);
	return fd;
}

/* Makes a handle take part in tls_Wait, or no more. A context needs its descriptor for that. */
static int64_t note_watch(struct process *p, int64_t handle, bool on)
{
	struct channel *ch = NULL;
	struct use u;
	bool ok = true;

	pthread_mutex_lock(&p->mu);
	if (p->session && handle >= p->first)
		ch = channel_make(&p->session->channels, handle);
	channel_release(ch);
	pthread_mutex_unlock(&p->mu);
	if (!use_begin(&u, p, set_option.name, handle))
		return 0; /* the next call says that it is lost */
	if (!u.ch)
		ok = use_fail(&u, "limit", "out of memory") == 0;
	else if (on && u.ch->context)
		ok = make_signal(&u);
	if (ok) {
		pthread_mutex_lock(&p->mu);
		u.ch->watched = true;
		watch_changed(p, u.ch);
		u.ch->watched = on;
		pthread_mutex_unlock(&p->mu);
	}
	use_end(&u);
	return ok ? 0 : -1;
}

int64_t connection_set_option(struct process *p, int64_t handle, const char *name,
			      const char *value)
{
	struct call c = { .method = &set_option, .handle = handle, .texts = { name, value } };
	struct channel *ch;

	if (use_raise_untold(p, handle) < 0 || client_run(p, &c) < 0)
		return -1;
	if (strcmp(name, "watch") == 0)
		return note_watch(p, handle, strcmp(value, "1") == 0);
	if (strcmp(name, "handshake") != 0)
		return 0;
	/* Accepted connections come with their pair, but must not use it before the handshake. */
	pthread_mutex_lock(&p->mu);
	if (p->session && handle >= p->first) {
		ch = channel_make(&p->session->channels, handle);
		if (ch)
			ch->later = strcmp(value, "later") == 0;
		channel_release(ch);
	}
	pthread_mutex_unlock(&p->mu);
	return 0;
}
