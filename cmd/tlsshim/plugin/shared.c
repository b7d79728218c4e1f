#define _GNU_SOURCE
#include "shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "text.h"

enum { PUT_BYTES = 64 * 1024 /* of a message; tlsd begins with it while we put in the next */ };

#define BROKEN_RULES "tlsd has broken the rules of the shared memory"

/* --- reading --- */

/* Drops bells and keeps last words, behind which nothing comes. What is longer is cut off. */
static void keep_last(struct wire *wi, const char *from, size_t len)
{
	for (size_t i = 0; i < len && !wi->ended; i++) {
		if (wi->last_len == 0 && from[i] == '\n')
			continue;
		if (wi->last_len < sizeof wi->last)
			wi->last[wi->last_len++] = from[i];
		wi->ended = from[i] == '\n';
	}
}

void wire_share(struct wire *wi)
{
	keep_last(wi, wi->in.at + wi->in.used, wi->in.have - wi->in.used);
	wi->in.used = wi->in.have = 0;
	wi->shared = true;
}

/* Reads what has come over the socket; false if there is nothing. */
bool shared_hear(struct wire *wi)
{
	char some[64];
	ssize_t n = recv(wi->fd, some, sizeof some, MSG_DONTWAIT);

	if (n > 0)
		keep_last(wi, some, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		wi->ended = true;
	return n > 0 || wi->ended;
}

/* Why a session has ended that tlsd has said something about. */
static void say_last(struct wire *wi, char *why)
{
	struct answer a;
	char *message = NULL;

	if (wi->last_len > 0 && wi->last[wi->last_len - 1] == '\n' &&
	    wire_parse((struct span){ wi->last, wi->last_len - 1 }, &a) && a.id_null && a.error.at)
		message = json_text(a.error);
	text_add(why, WHY_BYTES, "%s", message ? answer_reason(message) : WIRE_CLOSED);
	free(message);
}

/* Waits until there is something in the ring. */
static bool await_shared(struct wire *wi, struct wait *w, char *why)
{
	struct ring *in = &wi->rings.in;
	const char *at;
	size_t len;

	for (;;) {
		ring_sleep(in, atomic_load(&wi->sleep_for));
		if (atomic_load(&wi->sleep_for) == SLEEPS_FOR_ALL)
			ring_sleep_for_all(in); /* it became that meanwhile */
		if (!ring_peek(in, &at, &len)) {
			text_add(why, WHY_BYTES, BROKEN_RULES);
			return false;
		}
		if (len > 0) {
			ring_awake(in);
			return true;
		}
		if (wi->ended) {
			say_last(wi, why);
			return false;
		}
		if (!wire_await_input(wi->fd, w, why))
			return false;
		shared_hear(wi);
	}
}

/* A line is copied, because tlsd could change it while it is looked at. */
bool shared_read_line(struct wire *wi, struct wait *w, struct span *line, char *why)
{
	struct input *in = &wi->in;
	const char *at, *feed;
	size_t len;

	for (;;) {
		if (!ring_peek(&wi->rings.in, &at, &len)) {
			text_add(why, WHY_BYTES, BROKEN_RULES);
			return false;
		}
		feed = len > 0 ? memchr(at, '\n', len) : NULL;
		if (feed)
			len = (size_t)(feed - at) + 1;
		for (size_t n; len > 0; len -= n, at += n) {
			if (!wire_make_room(in, why))
				return false;
			n = in->cap - in->have < len ? in->cap - in->have : len;
			memcpy(in->at + in->have, at, n);
			in->have += n;
			ring_take(&wi->rings.in, n);
		}
		if (feed) {
			*line = (struct span){ in->at, in->have - 1 };
			in->have = 0;
			return true;
		}
		if (!await_shared(wi, w, why))
			return false;
	}
}

bool shared_raw(struct wire *wi, char *to, size_t len, struct wait *w, char *why)
{
	const char *at;
	size_t n;

	while (len > 0) {
		if (!ring_peek(&wi->rings.in, &at, &n)) {
			text_add(why, WHY_BYTES, BROKEN_RULES);
			return false;
		}
		n = n < len ? n : len;
		if (n == 0) {
			if (!await_shared(wi, w, why))
				return false;
			continue;
		}
		memcpy(to, at, n);
		ring_take(&wi->rings.in, n);
		to += n;
		len -= n;
	}
	return true;
}

bool wire_has_shared(const struct wire *wi)
{
	return wi->shared && ring_has_some(&wi->rings.in);
}

bool wire_sleep_for_all(struct wire *wi)
{
	atomic_store(&wi->sleep_for, SLEEPS_FOR_ALL);
	if (!wi->shared)
		return false;
	ring_sleep_for_all(&wi->rings.in);
	return wire_has_shared(wi);
}

/* --- sending --- */

/* Lets tlsd see what has been put in. There is always room for a bell, or there are some that tlsd has not
 * heard: one is sent for each time that it has gone to sleep. */
static bool publish(struct wire *wi)
{
	return !ring_publish(&wi->rings.out) || send(wi->fd, "\n", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 || errno == EAGAIN;
}

/* Tells tlsd, with an empty line behind the last message on the socket, to go on with the ring. */
static bool move(struct wire *wi, struct wait *w)
{
	struct iovec line = { .iov_base = "\n", .iov_len = 1 };

	wi->moved = wi->moved || wire_send_on_socket(wi, &line, 1, false, w);
	return wi->moved;
}

bool shared_put(struct wire *wi, const struct iovec *parts, int n, struct wait *w)
{
	struct ring *out = &wi->rings.out;

	if (!move(wi, w))
		return false;
	for (; n > 0; n--, parts++) {
		const char *from = parts->iov_base;
		size_t left = parts->iov_len, piece, done;

		for (; left > 0; from += done, left -= done) {
			piece = left < PUT_BYTES ? left : PUT_BYTES;
			if (!ring_put(out, from, piece, &done))
				return false;
			if (done < left && !publish(wi))
				return false;
			if (done == 0 && ((!ring_await_room(out, TICK_MS) && wire_is_over(wi, w)) || atomic_load(&wi->over)))
				return false;
		}
	}
	return publish(wi);
}

enum sent shared_try_put(struct wire *wi, const char *message, size_t len)
{
	size_t done;

	if (!ring_has_room(&wi->rings.out, len))
		return NO_ROOM;
	if (!wi->moved && send(wi->fd, "\n", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
		return errno == EAGAIN || errno == EINTR ? NO_ROOM : BROKEN;
	wi->moved = true;
	return ring_put(&wi->rings.out, message, len, &done) && publish(wi) ? SENT : BROKEN;
}
