#define _POSIX_C_SOURCE 200809L
#include "data.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "system.h"
#include "text.h"
#include "use.h"

static const struct method
	read_ = { .name = "tls.Read", .number = true, .flags = FAILS, .waits_on = CONNECTION },
	write_ = { .name = "tls.Write", .blob = true, .flags = FAILS, .waits_on = CONNECTION },
	flush = { .name = "tls.Flush", .number = true, .waits_on = CONNECTION };

/* --- parameters --- */

bool data_has_room(struct process *p, const struct call *c, const char *op)
{
	if (c->room < 1 || c->room > DATA_MAX_BYTES)
		fail(p, "params", op, 0, "maxBytes %zu: must be between 1 and %d", c->room,
		     DATA_MAX_BYTES);
	else if (!c->buf)
		fail(p, "params", op, 0, "buf: must not be NULL");
	else
		return true;
	return false;
}

bool data_is_good(struct process *p, const struct call *c, const char *op)
{
	if (c->blob_len > DATA_MAX_BYTES)
		fail(p, "params", op, 0, "data of %zu bytes: must not be more than %d", c->blob_len,
		     DATA_MAX_BYTES);
	else if (!c->blob && c->blob_len > 0)
		fail(p, "params", op, 0, "data: must not be NULL");
	else
		return true;
	return false;
}

/* --- reading --- */

enum {
	SPIN_US = 150, /* about a round trip of 64 bytes on an idle machine of 2 CPUs */
	MOST_SKIPS = 64,
};

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Spins: for SPIN_US it tries again and again to receive. If data comes, the thread need not sleep,
 * and that saves time: on an idle machine a CPU that sleeps needs 30 to 60 us to wake up. After a
 * spin without data, the next wait does not spin, but sleeps at once. Each further spin without
 * data doubles the number of waits that do not spin, up to MOST_SKIPS. One thread of the process
 * spins at a time, and none if there is only one CPU. Returns what recv(2) returns.
 *
 * Measured in a prototype, on a machine of 2 CPUs, with round trips of 64 bytes: on the idle
 * machine a round trip takes 167 us with spins, and 209 us without. While twenty other processes
 * are busy, 1 of 50 waits spins. These spins cost 1 us of CPU time for each round trip, and change
 * nothing else. */
static ssize_t spin(struct channel *ch, int fd, void *buf, size_t cap)
{
	static atomic_bool spinning;
	int64_t until;
	ssize_t n;

	errno = EAGAIN;
	if (ch->skip_spins > 0) {
		ch->skip_spins--;
		return -1;
	}
	if (sys_cpus() < 2 || atomic_exchange(&spinning, true))
		return -1;
	until = now_us() + SPIN_US;
	do {
		for (int i = 0; i < 20; i++)
			sys_pause();
		n = sys_recv(fd, buf, cap);
	} while (n < 0 && errno == EAGAIN && now_us() < until);
	atomic_store(&spinning, false);
	if (n >= 0)
		ch->idle_spins = 0;
	else if (ch->idle_spins < MOST_SKIPS)
		ch->idle_spins = ch->idle_spins ? ch->idle_spins * 2 : 1;
	ch->skip_spins = ch->idle_spins;
	return n;
}

/* Sets the error of a timeout that has passed, and returns -1. */
static int fail_late(struct use *u, int64_t timeout_ms)
{
	char why[64] = "";

	if (timeout_ms < 1000)
		text_add(why, sizeof why, "no data within %" PRId64 "ms", timeout_ms);
	else
		text_add(why, sizeof why, "no data within %gs", (double)timeout_ms / 1000);
	return use_fail(u, "timeout", why);
}

/* The result of a Read whose direction is no longer open. mu is held. */
static int result_at_end(struct use *u)
{
	if (u->ch->reading.state != BROKEN_OFF)
		return 0;
	return channel_raise(u->p, u->ch, &u->ch->reading);
}

static int at_end(struct use *u)
{
	int result;

	if (!use_ask(u))
		return -1;
	pthread_mutex_lock(&u->p->mu);
	result = result_at_end(u);
	pthread_mutex_unlock(&u->p->mu);
	return result;
}

/* Receives the bytes that have come. If none has come, it waits for bytes or the end, but at most
 * timeout_ms; 0 is no timeout. It returns what data_read returns. The call must have the turn to
 * read. */
static int64_t receive(struct use *u, void *buf, size_t cap, int64_t timeout_ms)
{
	int64_t deadline = 0;

	for (bool first = true;; first = false) {
		int fd = use_fd(u);
		ssize_t n;

		if (fd < 0)
			return -1;
		n = sys_recv(fd, buf, cap);
		if (n < 0 && errno == EAGAIN && first)
			n = spin(u->ch, fd, buf, cap);
		if (n > 0)
			return n;
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return at_end(u);
		if (timeout_ms > 0 && deadline == 0)
			deadline = now_ms() + timeout_ms;
		switch (use_wait(u, fd, POLLIN, deadline)) {
		case READY:
			break;
		case LATE:
			return fail_late(u, timeout_ms);
		case ENDED:
			return use_fail_ended(u);
		case FAILED:
			return use_fail(u, "io", errno_text(errno));
		}
	}
}

static int64_t read_in_turn(struct use *u, void *buf, size_t cap)
{
	struct channel *ch = u->ch;
	int64_t result, timeout;

	if (!use_take_turn(u, &ch->reading))
		return -1;
	timeout = ch->timeout ? ch->timeout : u->s->read_timeout;
	if (channel_raise_unreported(u->p, ch)) {
		result = -1;
	} else if (ch->reading.state != OPEN) {
		result = result_at_end(u);
	} else {
		pthread_mutex_unlock(&u->p->mu);
		result = receive(u, buf, cap, timeout);
		pthread_mutex_lock(&u->p->mu);
	}
	use_give_turn_back(u);
	return result;
}

int64_t data_read(struct process *p, struct call *c)
{
	int64_t result;
	struct use u;

	if (!data_has_room(p, c, read_.name) || !use_begin(&u, p, read_.name, c->handle))
		return -1;
	c->method = &read_;
	c->n = (int64_t)c->room;
	if (use_has_data(&u))
		result = read_in_turn(&u, c->buf, c->room);
	else
		result = client_run(p, c);
	use_end(&u);
	return result;
}

/* --- writing --- */

/* Sends the bytes, and returns how many it has sent. If it could not send all, it sets the error.
 * The call must have the turn to write. */
static size_t send_all(struct use *u, const char *at, size_t len)
{
	size_t sent = 0;

	while (sent < len) {
		int fd = use_fd(u);
		ssize_t n;

		if (fd < 0)
			break;
		n = sys_send(fd, at + sent, len - sent);
		if (n > 0) {
			sent += (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			/* This wait needs a deadline: if the other side shuts down its receiving
			 * (SHUT_RD), Linux does not wake a thread that waits for room. */
			enum waited end = use_wait(u, fd, POLLOUT, now_ms() + TICK_MS);

			if (end == ENDED || end == FAILED) {
				if (end == ENDED)
					use_fail_ended(u);
				else
					use_fail(u, "io", errno_text(errno));
				break;
			}
		} else if (n < 0 && errno != EINTR) {
			if (use_ask(u)) {
				pthread_mutex_lock(&u->p->mu);
				use_can_write(u); /* sets the error that use_ask has learnt */
				pthread_mutex_unlock(&u->p->mu);
			}
			break;
		}
	}
	return sent;
}

/* Waits until tlsd has sent the first n bytes of this connection to the peer. Returns false with
 * the error set if the wait or the sending fails. An error of kind limit concerns only the Flush.
 * Any other error of tls.Flush counts as the error of writing. */
static bool flush_all(struct use *u, int64_t n)
{
	struct call c = use_call(u, &flush);

	c.n = n;
	if (client_run(u->p, &c) == 0)
		return true;
	pthread_mutex_lock(&u->p->mu);
	if (u->ch->writing.state == OPEN && process_cancelled(u->p, u->began))
		u->ch->writing.state = CUT_SHORT; /* nobody knows how many bytes tlsd has sent */
	else if (c.failed && strcmp(c.kind.name, "limit") != 0)
		u->ch->writing.reported = true; /* the host gets the error of writing now */
	pthread_mutex_unlock(&u->p->mu);
	return false;
}

static int64_t write_in_turn(struct use *u, const char *data, size_t len)
{
	struct channel *ch = u->ch;
	int64_t total;
	size_t sent = 0;
	bool can;

	if (!use_take_turn(u, &ch->writing))
		return -1;
	can = use_can_write(u);
	pthread_mutex_unlock(&u->p->mu);
	if (can)
		sent = send_all(u, data, len);
	pthread_mutex_lock(&u->p->mu);
	total = ch->sent += (int64_t)sent;
	if (sent > 0 && sent < len && ch->writing.state == OPEN)
		ch->writing.state = CUT_SHORT;
	use_give_turn_back(u);
	if (!can || sent < len)
		return -1;
	if (atomic_load(&u->p->strict) && !flush_all(u, total))
		return -1;
	return (int64_t)len;
}

int64_t data_write(struct process *p, struct call *c)
{
	int64_t result;
	struct use u;

	if (!data_is_good(p, c, write_.name) || !use_begin(&u, p, write_.name, c->handle))
		return -1;
	c->method = &write_;
	if (use_has_data(&u)) {
		result = write_in_turn(&u, c->blob, c->blob_len);
	} else {
		c->blob_len = 0; /* the call only fetches tlsd's error */
		result = client_run(p, c);
	}
	use_end(&u);
	return result;
}
