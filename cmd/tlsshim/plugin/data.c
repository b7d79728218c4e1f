#define _POSIX_C_SOURCE 200809L
#include "data.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "client.h"
#include "json.h"
#include "system.h"
#include "text.h"

static const struct method
	handshake = { .name = "tls.Handshake", .waits_on = CONNECTION },
	accept_ = { .name = "tls.Accept", .flags = MAKES_HANDLE, .waits_on = CONTEXT },
	read_ = { .name = "tls.Read", .flags = FAILS, .waits_on = CONNECTION },
	write_ = { .name = "tls.Write", .flags = FAILS, .waits_on = CONNECTION },
	flush = { .name = "tls.Flush", .waits_on = CONNECTION },
	shutdown_ = { .name = "tls.Shutdown", .waits_on = CONNECTION },
	status = { .name = "tls.Status", .result = OBJECT },
	close_ = { .name = "tls.Close", .closes = CONNECTION },
	close_context = { .name = "tls.CloseServerContext", .closes = CONTEXT },
	set_timeout = { .name = "tls.SetTimeout" };

/* One use of a channel by one call. */
struct use {
	struct process *p;
	struct session *s;
	struct channel *ch; /* NULL: the handle has no data channel */
	const char *op;
	int64_t handle;
	unsigned began; /* p->cancels at that time */
};

/* False and the error set if the handle belongs to no session. */
static bool use_begin(struct use *u, struct process *p, const char *op, int64_t handle)
{
	*u = (struct use){ .p = p, .op = op, .handle = handle };
	if (!p)
		return false;
	u->began = atomic_load(&p->cancels);
	u->s = client_session(p, op, handle);
	if (!u->s)
		return false;
	pthread_mutex_lock(&p->mu);
	u->ch = channel_find(&u->s->channels, handle);
	pthread_mutex_unlock(&p->mu);
	return true;
}

static void use_end(struct use *u)
{
	pthread_mutex_lock(&u->p->mu);
	channel_release(u->ch);
	pthread_mutex_unlock(&u->p->mu);
	session_release(u->p, u->s);
}

static bool has_data(const struct use *u)
{
	return u->ch && u->ch->fd;
}

/* --- errors --- */

static int fail(struct use *u, const char *why)
{
	return (int)process_fail(u->p, "%s: handle %" PRId64 ": %s", u->op, u->handle, why);
}

static int fail_lost(struct use *u)
{
	return (int)process_fail(u->p, "%s: handle %" PRId64 ": lost: %s", u->op, u->handle, u->s->why);
}

/* The descriptor of the channel; -1 and the session lost if it has been replaced. */
static int data_fd(struct use *u)
{
	int fd = owned_fd(u->ch->fd);

	if (fd >= 0)
		return fd;
	pthread_mutex_lock(&u->p->mu);
	session_lose(u->p, u->s, WIRE_REPLACED);
	pthread_mutex_unlock(&u->p->mu);
	fail_lost(u);
	return -1;
}

/* The text behind "tls.Read: ". */
static const char *reason(const char *error)
{
	const char *colon = strchr(error, ':');

	return colon ? colon : error;
}

/* Raises the error of a direction. mu is held, and given up for a moment. */
static int raise_error(struct use *u, struct direction *d)
{
	struct direction *other = d == &u->ch->reading ? &u->ch->writing : &u->ch->reading;
	char *text = strdup(d->error ? d->error : "out of memory");

	d->told = true;
	if (other->error && d->error && strcmp(reason(other->error), reason(d->error)) == 0)
		other->told = true; /* one cause has ended both */
	pthread_mutex_unlock(&u->p->mu);
	process_fail(u->p, "%s", text ? text : "out of memory");
	free(text);
	pthread_mutex_lock(&u->p->mu);
	return -1;
}

static bool is_untold(const struct channel *ch)
{
	return ch && ch->writing.state == BROKEN_OFF && !ch->writing.told;
}

/* Raises what is to be raised by the next call on the handle. Returns 0 if there is nothing. */
static int raise_untold(struct use *u)
{
	int result = 0;

	pthread_mutex_lock(&u->p->mu);
	if (is_untold(u->ch))
		result = raise_error(u, &u->ch->writing);
	pthread_mutex_unlock(&u->p->mu);
	return result;
}

int data_raise(struct process *p, int64_t handle)
{
	struct use u;
	int result;

	if (!use_begin(&u, p, "tls", handle))
		return 0; /* the call itself will say so */
	result = raise_untold(&u);
	use_end(&u);
	return result;
}

/* --- how a channel stands --- */

/* Notes what tls.Status has said of a direction. mu is held. */
static void note(struct direction *d, struct span said, struct span error)
{
	if (d->state != OPEN && d->state != CUT_SHORT)
		return;
	if (json_is(said, "\"end\"") || json_is(said, "\"shut\"")) {
		d->state = d->state == OPEN ? ENDED_WELL : d->state;
	} else if (json_is(said, "\"failed\"")) {
		struct span message = json_member(error, "message");
		d->error = json_is_string(message) ? json_text(message) : NULL;
		d->state = BROKEN_OFF;
	}
}

/* Asks tlsd why a direction has ended. False and the error set if it does not say. */
static bool learn(struct use *u, const struct direction *d)
{
	struct call c = { .method = &status, .op = u->op, .handle = u->handle };
	struct span said;
	bool known;

	if (client_run(u->p, &c, NULL, NULL, NULL) < 0)
		return false;
	said = (struct span){ c.text, strlen(c.text) };
	pthread_mutex_lock(&u->p->mu);
	note(&u->ch->reading, json_member(said, "read"), json_member(said, "readError"));
	note(&u->ch->writing, json_member(said, "write"), json_member(said, "writeError"));
	known = d->state != OPEN;
	pthread_mutex_unlock(&u->p->mu);
	free(c.text);
	if (!known)
		fail(u, "tlsd has ended the data of this connection and does not say why");
	return known;
}

/* --- waiting --- */

struct data_wait {
	struct wait wait; /* the first, so that a pointer to it is one to the whole */
	struct use *u;
	struct direction *d;
};

static void look(struct wait *w)
{
	struct data_wait *dw = (struct data_wait *)w;
	struct use *u = dw->u;

	pthread_mutex_lock(&u->p->mu);
	turn_stir(&dw->d->turn);
	w->ended = process_cancelled(u->p, u->began) || u->ch->closing || u->s->lost;
	pthread_mutex_unlock(&u->p->mu);
}

/* Sets the error of a wait that has ended early. Returns -1. */
static int fail_ended(struct use *u)
{
	bool lost, closing;

	pthread_mutex_lock(&u->p->mu);
	lost = u->s->lost;
	closing = u->ch->closing;
	pthread_mutex_unlock(&u->p->mu);
	if (process_cancelled(u->p, u->began))
		return fail(u, "cancelled by the caller");
	if (lost)
		return fail_lost(u);
	return fail(u, closing ? "the handle was closed while the call waited" : "the wait has ended");
}

/* Takes the turn of a direction, with mu held after that. False and the error set, without mu,
 * if the call is cancelled or the handle closed before. */
static bool take_turn(struct use *u, struct direction *d)
{
	bool taken;

	pthread_mutex_lock(&u->p->mu);
	taken = turn_take(u->p, &d->turn, u->began);
	if (taken && !u->ch->closing && !u->s->lost)
		return true;
	if (taken)
		turn_give_back(&d->turn);
	pthread_mutex_unlock(&u->p->mu);
	fail_ended(u);
	return false;
}

/* --- reading --- */

enum {
	SPIN_US = 60,
	MOST_SKIPS = 64,
};

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Tries again for a moment, before the thread goes to sleep. In ping-pong the answer is often
 * there sooner than a sleeping thread could be woken. A spin that brings nothing makes
 * the next waits go without, twice as many each time. It needs a CPU that has nothing else to
 * do. Returns what recv(2) does. */
static ssize_t spin(struct channel *ch, int fd, void *buf, size_t cap)
{
	int64_t until;
	ssize_t n = -1;

	errno = EAGAIN;
	if (sys_cpus() < 2)
		return -1;
	if (ch->skip_spins > 0) {
		ch->skip_spins--;
		return -1;
	}
	until = now_us() + SPIN_US;
	do {
		for (int i = 0; i < 20; i++)
			sys_pause();
		n = sys_recv(fd, buf, cap);
	} while (n < 0 && errno == EAGAIN && now_us() < until);
	if (n >= 0) {
		ch->idle_spins = 0;
	} else if (errno == EAGAIN) {
		ch->idle_spins = ch->idle_spins == 0 ? 1 : ch->idle_spins * 2;
		if (ch->idle_spins > MOST_SKIPS)
			ch->idle_spins = MOST_SKIPS;
		ch->skip_spins = ch->idle_spins;
	}
	return n;
}

/* Milliseconds as people write them. */
static void put_duration(char *to, size_t cap, int64_t ms)
{
	if (ms < 1000)
		text_add(to, cap, "%" PRId64 "ms", ms);
	else if (ms % 1000 == 0)
		text_add(to, cap, "%" PRId64 "s", ms / 1000);
	else
		text_add(to, cap, "%" PRId64 ".%03" PRId64 "s", ms / 1000, ms % 1000);
}

static int fail_late(struct use *u, int64_t timeout)
{
	char why[64] = "no data within ";

	put_duration(why, sizeof why, timeout);
	return fail(u, why);
}

/* What a Read gives when its direction is no longer open. mu is held. */
static int64_t read_result_at_end(struct use *u)
{
	if (u->ch->reading.state == BROKEN_OFF)
		return raise_error(u, &u->ch->reading);
	return is_untold(u->ch) ? raise_error(u, &u->ch->writing) : 0;
}

static int64_t at_end(struct use *u)
{
	int64_t result = -1;

	if (learn(u, &u->ch->reading)) {
		pthread_mutex_lock(&u->p->mu);
		result = read_result_at_end(u);
		pthread_mutex_unlock(&u->p->mu);
	}
	return result;
}

/* Reads what is there, or waits for it. The use has the turn; timeout in ms, or 0. */
static int64_t receive(struct use *u, void *buf, size_t cap, int64_t timeout)
{
	struct data_wait dw = { .wait = { .bell = &u->p->bell, .look = look }, .u = u, .d = &u->ch->reading };

	for (bool spun = false;; spun = true) {
		int fd = data_fd(u);
		ssize_t n;

		if (fd < 0)
			return -1;
		n = sys_recv(fd, buf, cap);
		if (n < 0 && errno == EAGAIN && !spun)
			n = spin(u->ch, fd, buf, cap);
		if (n > 0)
			return n;
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return at_end(u);
		if (timeout > 0 && !dw.wait.deadline)
			dw.wait.deadline = now_ms() + timeout;
		switch (wait_for(fd, POLLIN, &dw.wait)) {
		case READY:
			break;
		case LATE:
			return fail_late(u, timeout);
		case ENDED:
			return fail_ended(u);
		case FAILED:
			return fail(u, errno_text(errno));
		}
	}
}

static int64_t read_in_turn(struct use *u, void *buf, size_t cap)
{
	struct channel *ch = u->ch;
	int64_t result, timeout;

	if (!take_turn(u, &ch->reading))
		return -1;
	timeout = ch->timeout ? ch->timeout : u->s->read_timeout;
	if (is_untold(ch))
		result = raise_error(u, &ch->writing);
	else if (ch->reading.state != OPEN)
		result = read_result_at_end(u);
	else {
		pthread_mutex_unlock(&u->p->mu);
		result = receive(u, buf, cap, timeout);
		pthread_mutex_lock(&u->p->mu);
	}
	turn_give_back(&ch->reading.turn);
	pthread_mutex_unlock(&u->p->mu);
	return result;
}

int64_t data_read(struct process *p, int64_t handle, void *buf, size_t max_bytes)
{
	struct call c = { .method = &read_, .handle = handle };
	int64_t result, n = (int64_t)max_bytes;
	struct use u;

	if (!use_begin(&u, p, read_.name, handle))
		return -1;
	result = has_data(&u) ? read_in_turn(&u, buf, max_bytes) : client_run(p, &c, NULL, NULL, &n);
	use_end(&u);
	return result;
}

/* --- writing --- */

/* Whether the direction can be written to; if not, the error is set. mu is held. */
static bool can_write(struct use *u)
{
	const char *why = NULL;

	switch (u->ch->writing.state) {
	case OPEN:
		return true;
	case BROKEN_OFF:
		raise_error(u, &u->ch->writing);
		return false;
	case CUT_SHORT:
		why = "an earlier Write was cut short, so nothing can follow it; only tls.Read and tls.Close are possible";
		break;
	case ENDED_WELL:
		why = "tls.Shutdown has ended this direction; only tls.Read and tls.Close are possible";
		break;
	}
	pthread_mutex_unlock(&u->p->mu);
	fail(u, why);
	pthread_mutex_lock(&u->p->mu);
	return false;
}

/* The channel cannot be sent on any more. Sets the error that says why. */
static void fail_sending(struct use *u)
{
	if (!learn(u, &u->ch->writing))
		return;
	pthread_mutex_lock(&u->p->mu);
	can_write(u);
	pthread_mutex_unlock(&u->p->mu);
}

/* Sends all, or as much as can be sent; returns how much, and then the error is set. The use
 * has the turn. */
static size_t send_all(struct use *u, const char *at, size_t len)
{
	struct data_wait dw = { .wait = { .bell = &u->p->bell, .look = look }, .u = u, .d = &u->ch->writing };
	size_t sent = 0;

	while (sent < len) {
		int fd = data_fd(u);
		ssize_t n;

		if (fd < 0)
			break;
		n = sys_send(fd, at + sent, len - sent);
		if (n > 0) {
			sent += (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			/* Linux does not wake who waits for room when the other side stops receiving. */
			dw.wait.deadline = now_ms() + TICK_MS;
			if (wait_for(fd, POLLOUT, &dw.wait) == ENDED) {
				fail_ended(u);
				break;
			}
		} else if (n < 0 && errno != EINTR) {
			fail_sending(u);
			break;
		}
	}
	return sent;
}

/* Notes how many bytes of a Write of so many were sent. mu is held. */
static void note_sent(struct channel *ch, size_t sent, size_t len)
{
	ch->sent += (int64_t)sent;
	if (sent > 0 && sent < len && ch->writing.state == OPEN)
		ch->writing.state = CUT_SHORT;
}

/* Waits until all that was sent has left. */
static bool flush_all(struct use *u, int64_t total)
{
	struct call c = { .method = &flush, .op = u->op, .handle = u->handle };

	if (client_run(u->p, &c, NULL, NULL, &total) == 0)
		return true;
	pthread_mutex_lock(&u->p->mu);
	if (u->ch->writing.state == OPEN && process_cancelled(u->p, u->began))
		u->ch->writing.state = CUT_SHORT; /* nobody has been told what has left */
	pthread_mutex_unlock(&u->p->mu);
	return false;
}

static int64_t write_in_turn(struct use *u, const char *data, size_t len)
{
	struct channel *ch = u->ch;
	int64_t total;
	size_t sent = 0;
	bool can;

	if (!take_turn(u, &ch->writing))
		return -1;
	can = can_write(u);
	pthread_mutex_unlock(&u->p->mu);
	if (can)
		sent = send_all(u, data, len);
	pthread_mutex_lock(&u->p->mu);
	note_sent(ch, sent, len);
	total = ch->sent;
	turn_give_back(&ch->writing.turn);
	pthread_mutex_unlock(&u->p->mu);
	if (!can || sent < len)
		return -1;
	if (atomic_load(&u->p->strict) && !flush_all(u, total))
		return -1;
	return (int64_t)len;
}

int64_t data_write(struct process *p, int64_t handle, const void *data, size_t len)
{
	struct call c = { .method = &write_, .handle = handle };
	int64_t result;
	struct use u;

	if (!use_begin(&u, p, write_.name, handle))
		return -1;
	result = has_data(&u) ? write_in_turn(&u, data, len) : client_run(p, &c, "", NULL, NULL);
	use_end(&u);
	return result;
}

/* --- from the handshake to the close --- */

/* A pair of which the call sends one end; false and the error set if there can be none. */
static bool make_pair(struct process *p, struct call *c, struct owned *ends[2])
{
	if (owned_socketpair(ends)) {
		c->pass = ends[1];
		return true;
	}
	process_fail(p, "%s: handle %" PRId64 ": limit: no descriptor for the data of the connection: %s%s", c->method->name,
		     c->handle, errno_text(errno), errno == EMFILE ? "; raise RLIMIT_NOFILE or close others" : "");
	return false;
}

/* Makes our end the data channel of a connection that is ready; or closes it. */
static int attach(struct process *p, const char *op, int64_t handle, struct owned *end)
{
	struct channel *ch = NULL;
	bool lost;

	pthread_mutex_lock(&p->mu);
	lost = !p->session || handle < p->first; /* the next call says so */
	if (!lost)
		ch = channel_make(&p->session->channels, handle);
	if (ch && !ch->fd) {
		ch->fd = end;
		end = NULL;
	}
	channel_release(ch);
	pthread_mutex_unlock(&p->mu);
	owned_close(end);
	if (!ch && !lost)
		return (int)process_fail(p, "%s: out of memory", op);
	return 0;
}

/* Whether the connection has its data channel; -1 and the error set if the call ends there. */
static int is_ready(struct process *p, int64_t handle)
{
	struct use u;
	int result;

	if (!use_begin(&u, p, handshake.name, handle))
		return -1;
	result = raise_untold(&u) < 0 ? -1 : has_data(&u);
	use_end(&u);
	return result;
}

int64_t data_handshake(struct process *p, int64_t handle)
{
	struct call c = { .method = &handshake, .handle = handle };
	struct owned *ends[2];
	int ready = is_ready(p, handle);

	if (ready < 0 || (!ready && !make_pair(p, &c, ends)))
		return -1;
	if (ready)
		return client_run(p, &c, NULL, NULL, NULL);
	if (client_run(p, &c, NULL, NULL, NULL) == 0)
		return attach(p, handshake.name, handle, ends[0]);
	owned_close(ends[0]);
	/* Another thread may have done it, and then tlsd wants no second descriptor. */
	if (!process_cancelled(p, c.began) && is_ready(p, handle) == 1)
		return client_run(p, &c, NULL, NULL, NULL);
	return -1;
}

int64_t data_accept(struct process *p, int64_t ctx, const char *host, int32_t port)
{
	struct call c = { .method = &accept_, .handle = ctx };
	struct owned *ends[2];
	int64_t n = port;

	if (!p || !make_pair(p, &c, ends))
		return -1;
	if (client_run(p, &c, host, NULL, &n) == 0)
		return attach(p, accept_.name, c.number, ends[0]) < 0 ? -1 : c.number;
	owned_close(ends[0]);
	return -1;
}

/* Whether tls_Shutdown has still to be asked for; if not, *result is its result. The state is
 * changed first, so that no Write comes behind it. */
static bool begin_shutdown(struct use *u, int *result)
{
	bool go = false;

	*result = -1;
	if (!take_turn(u, &u->ch->writing))
		return false;
	if (u->ch->writing.state == ENDED_WELL) {
		*result = 0;
	} else if (can_write(u)) {
		u->ch->writing.state = ENDED_WELL;
		go = true;
	}
	turn_give_back(&u->ch->writing.turn);
	pthread_mutex_unlock(&u->p->mu);
	return go;
}

int64_t data_shutdown(struct process *p, int64_t handle)
{
	struct call c = { .method = &shutdown_, .handle = handle };
	struct use u;
	int result;

	if (!use_begin(&u, p, shutdown_.name, handle))
		return -1;
	if (!has_data(&u) || begin_shutdown(&u, &result)) {
		result = client_run(p, &c, NULL, NULL, NULL);
		if (result < 0 && u.ch) {
			pthread_mutex_lock(&p->mu);
			if (u.ch->writing.state == ENDED_WELL)
				u.ch->writing.state = OPEN; /* the next Write asks tlsd */
			pthread_mutex_unlock(&p->mu);
		}
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
	bell_ring(&u->p->bell);
	if (turn_take(u->p, &ch->writing.turn, u->began)) /* the Write that was going on has ended */
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
	if (result == 0 && is_untold(u->ch))
		result = raise_error(u, &u->ch->writing);
	channel_drop(&u->s->channels, u->ch);
	pthread_mutex_unlock(&u->p->mu);
	return result;
}

static int64_t close_handle(struct process *p, const struct method *m, int64_t handle)
{
	struct call c = { .method = m, .handle = handle };
	bool ready;
	struct use u;
	int result;

	if (!use_begin(&u, p, m->name, handle))
		return -1;
	ready = has_data(&u) && m->closes == CONNECTION;
	if (ready)
		begin_close(&u);
	result = client_run(p, &c, NULL, NULL, NULL);
	if (ready || (u.ch && !u.ch->fd && result == 0))
		result = end_close(&u, result);
	use_end(&u);
	return result;
}

int64_t data_close(struct process *p, int64_t handle)
{
	return close_handle(p, &close_, handle);
}

int64_t data_close_context(struct process *p, int64_t ctx)
{
	return close_handle(p, &close_context, ctx);
}

int64_t data_set_timeout(struct process *p, int64_t handle, int32_t milliseconds)
{
	struct call c = { .method = &set_timeout, .handle = handle };
	int64_t n = milliseconds;
	struct channel *ch;

	if (data_raise(p, handle) < 0 || client_run(p, &c, NULL, NULL, &n) < 0)
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

int64_t data_descriptor(struct process *p, int64_t handle)
{
	struct use u;
	int fd = -1;

	if (!use_begin(&u, p, "tls.Descriptor", handle))
		return -1;
	if (has_data(&u))
		fd = raise_untold(&u) < 0 ? -1 : data_fd(&u);
	else
		fail(&u, "there is none before the handshake");
	use_end(&u);
	return fd;
}
