#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "text.h"

enum {
	FIRST_BYTES = 32 * 1024, /* of the input; holds an answer with a TLS record's data */
	PIECE_BYTES = 256 * 1024, /* of a message; between two of them it is seen whether to go on */
	PUT_BYTES = 64 * 1024,    /* of a message that goes through a ring; tlsd begins with it while we put in the next */
};

#define BROKEN_RULES "tlsd has broken the rules of the shared memory"
#define CLOSED "tlsd has closed the session"

/* --- life --- */

void wire_init(struct wire *wi, int fd, bool share)
{
	wi->fd = fd;
	wi->rings = (struct rings){ .fd = -1 };
	if (share)
		rings_make(&wi->rings);
}

void wire_free(struct wire *wi)
{
	close(wi->fd);
	rings_free(&wi->rings);
	free(wi->in.at);
}

void wire_end(struct wire *wi)
{
	atomic_store(&wi->over, true);
	shutdown(wi->fd, SHUT_RDWR); /* ends a send that waits */
	if (wi->rings.mem)
		ring_give_up(&wi->rings.out);
}

/* --- reading --- */

/* Waits until there is something to read. */
static bool await_input(int fd, struct wait *w, char *why)
{
	switch (wait_for(fd, POLLIN, w)) {
	case READY:
		return true;
	case LATE:
	case ENDED:
		text_add(why, WHY_BYTES, "%s", w->why ? w->why : "tlsd has not answered in time");
		return false;
	default:
		text_add(why, WHY_BYTES, "poll: %s", errno_text(errno));
		return false;
	}
}

/* Of the socket at most len bytes; 0 if there are no more, with the reason in why. The flags
 * make sure that recv(2) does not wait for longer than a tick. */
static size_t receive(int fd, char *to, size_t len, int flags, struct wait *w, char *why)
{
	for (;;) {
		ssize_t n = recv(fd, to, len, flags);

		if (n > 0)
			return (size_t)n;
		if (n == 0) {
			text_add(why, WHY_BYTES, CLOSED);
			return 0;
		}
		if (errno == EAGAIN) {
			if (!await_input(fd, w, why))
				return 0;
		} else if (errno != EINTR) {
			text_add(why, WHY_BYTES, "tlsd is gone: %s", errno_text(errno));
			return 0;
		}
	}
}

/* Makes room behind what the input has. */
static bool make_room(struct input *in, char *why)
{
	size_t cap = in->cap ? in->cap * 2 : FIRST_BYTES;
	char *grown;

	if (in->used > 0) {
		in->have -= in->used;
		memmove(in->at, in->at + in->used, in->have);
		in->used = 0;
	}
	if (in->have < in->cap)
		return true;
	if (cap > LINE_MAX_BYTES) {
		text_add(why, WHY_BYTES, "tlsd has sent a line of more than %d bytes", LINE_MAX_BYTES);
		return false;
	}
	grown = realloc(in->at, cap);
	if (!grown) {
		text_add(why, WHY_BYTES, "out of memory");
		return false;
	}
	in->at = grown;
	in->cap = cap;
	return true;
}

static bool read_line_from_socket(struct wire *wi, struct wait *w, struct span *line, char *why)
{
	struct input *in = &wi->in;
	size_t searched = 0, n; /* bytes of the line that have no line feed */

	for (;;) {
		size_t have = in->have - in->used;
		const char *start = have > 0 ? in->at + in->used : NULL; /* at first there is no buffer */
		const char *feed = have > searched ? memchr(start + searched, '\n', have - searched) : NULL;

		if (feed) {
			*line = (struct span){ start, (size_t)(feed - start) };
			in->used += line->len + 1;
			return true;
		}
		searched = have;
		if (!make_room(in, why))
			return false;
		n = receive(wi->fd, in->at + in->have, in->cap - in->have, MSG_DONTWAIT, w, why);
		if (n == 0)
			return false;
		in->have += n;
	}
}

/* --- reading from the rings --- */

/* Drops bells and keeps last words. What is longer is cut off. */
static void keep_last(struct wire *wi, const char *from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((wi->last_len > 0 || from[i] != '\n') && wi->last_len < sizeof wi->last)
			wi->last[wi->last_len++] = from[i];
}

void wire_share(struct wire *wi)
{
	keep_last(wi, wi->in.at + wi->in.used, wi->in.have - wi->in.used);
	wi->in.used = wi->in.have = 0;
	wi->shared = true;
}

/* Reads what has come over the socket; false if there is nothing. */
static bool hear(struct wire *wi)
{
	char some[64];
	ssize_t n = recv(wi->fd, some, sizeof some, MSG_DONTWAIT);

	if (n > 0)
		keep_last(wi, some, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		wi->ended = true;
	return n > 0 || wi->ended;
}

static void say_last(struct wire *wi, char *why);

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
		if (!await_input(wi->fd, w, why))
			return false;
		hear(wi);
	}
}

/* A line is copied, because tlsd could change it while it is looked at. */
static bool read_line_from_ring(struct wire *wi, struct wait *w, struct span *line, char *why)
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
			if (!make_room(in, why))
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

static bool raw_from_ring(struct wire *wi, char *to, size_t len, struct wait *w, char *why)
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

bool wire_has_input(struct wire *wi)
{
	char byte;

	if (!wi->shared)
		return recv(wi->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
	while (!wi->ended && hear(wi))
		;
	return wi->ended || wire_has_shared(wi);
}

bool wire_sleep_for_all(struct wire *wi)
{
	atomic_store(&wi->sleep_for, SLEEPS_FOR_ALL);
	if (!wi->shared)
		return false;
	ring_sleep_for_all(&wi->rings.in);
	return wire_has_shared(wi);
}

/* --- answers --- */

/* Reads text that the line begins with. */
static bool skip(struct span *line, const char *text)
{
	size_t len = strlen(text);

	if (line->len < len || memcmp(line->at, text, len) != 0)
		return false;
	line->at += len;
	line->len -= len;
	return true;
}

/* Reads a number that the line begins with, of at most 15 digits and without a sign. */
static bool skip_number(struct span *line, int64_t *n)
{
	size_t i = 0;

	for (*n = 0; i < line->len && i < 15 && line->at[i] >= '0' && line->at[i] <= '9'; i++)
		*n = *n * 10 + (line->at[i] - '0');
	if (i == 0 || (i > 1 && line->at[0] == '0'))
		return false;
	line->at += i;
	line->len -= i;
	return true;
}

/* Takes the answers to Read and Write apart as tlsd writes them when nothing has gone wrong:
 *
 *     {"jsonrpc":"2.0","id":ID,"result":N}
 *     {"jsonrpc":"2.0","id":ID,"result":null,"raw":N}
 */
static bool take_apart_usual(struct span line, struct answer *a)
{
	struct span number;
	int64_t n;

	*a = (struct answer){ 0 };
	if (!skip(&line, "{\"jsonrpc\":\"2.0\",\"id\":") || !skip_number(&line, &a->id) || !skip(&line, ",\"result\":"))
		return false;
	number = line;
	if (skip_number(&line, &n)) {
		a->result = (struct span){ number.at, number.len - line.len };
		return line.len == 1 && *line.at == '}';
	}
	a->result = (struct span){ number.at, 4 };
	if (!skip(&line, "null,\"raw\":") || !skip_number(&line, &n) || n > RAW_MAX_BYTES)
		return false;
	a->has_raw = true;
	a->raw = (size_t)n;
	return line.len == 1 && *line.at == '}';
}

static bool take_apart(struct span line, struct answer *a)
{
	struct span id, error, raw;
	int64_t n;

	if (take_apart_usual(line, a))
		return true;
	if (!json_valid(line) || !json_is(json_member(line, "jsonrpc"), "\"2.0\""))
		return false;
	id = json_member(line, "id");
	error = json_member(line, "error");
	raw = json_member(line, "raw");

	*a = (struct answer){ .result = json_member(line, "result") };
	a->id_null = json_is(id, "null");
	if (!a->id_null && !json_int(id, &a->id))
		return false;
	if ((a->result.at != NULL) == (error.at != NULL))
		return false;
	if (error.at) {
		a->error = json_member(error, "message");
		if (!json_is_string(a->error))
			return false;
	}
	if (raw.at) {
		if (!json_int(raw, &n) || n < 0 || n > RAW_MAX_BYTES || !json_is(a->result, "null"))
			return false;
		a->has_raw = true;
		a->raw = (size_t)n;
	}
	return true;
}

const char *answer_reason(const char *message)
{
	return strncmp(message, "lost: ", 6) == 0 ? message + 6 : message;
}

/* Why a session has ended that tlsd has said something about. */
static void say_last(struct wire *wi, char *why)
{
	struct answer a;
	char *message = NULL;

	if (wi->last_len > 0 && wi->last[wi->last_len - 1] == '\n' &&
	    take_apart((struct span){ wi->last, wi->last_len - 1 }, &a) && a.id_null && a.error.at)
		message = json_text(a.error);
	text_add(why, WHY_BYTES, "%s", message ? answer_reason(message) : CLOSED);
	free(message);
}

bool wire_read(struct wire *wi, struct wait *w, struct answer *a, char why[WHY_BYTES])
{
	struct span line;

	if (!(wi->shared ? read_line_from_ring : read_line_from_socket)(wi, w, &line, why))
		return false;
	if (take_apart(line, a))
		return true;
	text_add(why, WHY_BYTES, "tlsd has sent a line that is no answer of JSON-RPC 2.0");
	return false;
}

static bool raw_from_socket(struct wire *wi, char *to, size_t len, struct wait *w, char *why)
{
	struct input *in = &wi->in;
	size_t have = in->have - in->used, n = len < have ? len : have;

	if (n > 0)
		memcpy(to, in->at + in->used, n);
	in->used += n;
	while (n < len) {
		have = receive(wi->fd, to + n, len - n, MSG_WAITALL, w, why);
		n += have;
		/* Only part of it has come in a tick. Another is not granted blindly: a tlsd that
		 * sends byte after byte could use up any number of them. */
		if (have == 0 || (n < len && !await_input(wi->fd, w, why)))
			return false;
	}
	return true;
}

bool wire_raw(struct wire *wi, char *to, size_t len, struct wait *w, char why[WHY_BYTES])
{
	return (wi->shared ? raw_from_ring : raw_from_socket)(wi, to, len, w, why);
}

/* --- sending --- */

/* The first parts of a message that together are no longer than a piece. Returns
 * how many, and shortens the last of them; whole is how long that one was. */
static size_t take_piece(struct iovec *parts, int n, size_t *whole)
{
	size_t room = PIECE_BYTES, i = 0;

	do {
		*whole = parts[i].iov_len;
		if (*whole > room)
			parts[i].iov_len = room;
		room -= parts[i].iov_len;
	} while (++i < (size_t)n && room > 0);
	return i;
}

/* The control message that carries a descriptor. */
struct rights {
	alignas(struct cmsghdr) char at[CMSG_SPACE(sizeof(int))];
};

static void carry(struct msghdr *m, struct rights *r, int fd)
{
	struct cmsghdr *c;

	memset(r, 0, sizeof *r);
	m->msg_control = r->at;
	m->msg_controllen = sizeof r->at;
	c = CMSG_FIRSTHDR(m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
}

static bool is_over(struct wire *wi, struct wait *w)
{
	return atomic_load(&wi->over) || wait_ended(w) || (w->deadline && now_ms() >= w->deadline);
}

static bool send_on_socket(struct wire *wi, struct iovec *parts, int n, bool offer, struct wait *w)
{
	struct rights rights;

	while (n > 0) {
		struct msghdr m = { .msg_iov = parts };
		size_t whole;
		ssize_t sent;

		if (parts->iov_len == 0) {
			parts++;
			n--;
			continue;
		}
		m.msg_iovlen = take_piece(parts, n, &whole);
		if (offer && wi->rings.fd >= 0)
			carry(&m, &rights, wi->rings.fd);
		sent = sendmsg(wi->fd, &m, MSG_NOSIGNAL);
		parts[m.msg_iovlen - 1].iov_len = whole;
		if (sent < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		if (sent > 0 && offer)
			rings_sent(&wi->rings);
		for (; n > 0 && sent > 0 && (size_t)sent >= parts->iov_len; parts++, n--)
			sent -= (ssize_t)parts->iov_len;
		if (n > 0 && sent > 0) {
			parts->iov_base = (char *)parts->iov_base + sent;
			parts->iov_len -= (size_t)sent;
		}
		if (n > 0 && is_over(wi, w))
			return false;
	}
	return true;
}

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

	wi->moved = wi->moved || send_on_socket(wi, &line, 1, false, w);
	return wi->moved;
}

static bool put_in_ring(struct wire *wi, const struct iovec *parts, int n, struct wait *w)
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
			if (done == 0 && ((!ring_await_room(out, TICK_MS) && is_over(wi, w)) || atomic_load(&wi->over)))
				return false;
		}
	}
	return publish(wi);
}

bool wire_send(struct wire *wi, struct iovec *parts, int n, bool offer, struct wait *w)
{
	if (wi->put_shared)
		return put_in_ring(wi, parts, n, w);
	return send_on_socket(wi, parts, n, offer, w);
}

enum sent wire_try_send(struct wire *wi, const char *message, size_t len)
{
	ssize_t n;
	size_t done;

	if (wi->shared) {
		if (!ring_has_room(&wi->rings.out, len))
			return NO_ROOM;
		if (!wi->moved && send(wi->fd, "\n", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
			return errno == EAGAIN || errno == EINTR ? NO_ROOM : BROKEN;
		wi->moved = true;
		return ring_put(&wi->rings.out, message, len, &done) && publish(wi) ? SENT : BROKEN;
	}
	n = send(wi->fd, message, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return NO_ROOM;
	return n == (ssize_t)len ? SENT : BROKEN;
}
