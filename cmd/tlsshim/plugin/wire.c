#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared.h"
#include "text.h"

enum {
	FIRST_BYTES = 32 * 1024, /* of the input; holds an answer with a TLS record's data */
	PIECE_BYTES = 256 * 1024, /* of a message; between two of them it is seen whether to go on */
};

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
bool wire_await_input(int fd, struct wait *w, char *why)
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
			text_add(why, WHY_BYTES, WIRE_CLOSED);
			return 0;
		}
		if (errno == EAGAIN) {
			if (!wire_await_input(fd, w, why))
				return 0;
		} else if (errno != EINTR) {
			text_add(why, WHY_BYTES, "tlsd is gone: %s", errno_text(errno));
			return 0;
		}
	}
}

/* Makes room behind what the input has. */
bool wire_make_room(struct input *in, char *why)
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
		if (!wire_make_room(in, why))
			return false;
		n = receive(wi->fd, in->at + in->have, in->cap - in->have, MSG_DONTWAIT, w, why);
		if (n == 0)
			return false;
		in->have += n;
	}
}

/* --- reading, either way --- */

bool wire_read(struct wire *wi, struct wait *w, struct answer *a, char why[WHY_BYTES])
{
	struct span line;

	if (!(wi->shared ? shared_read_line : read_line_from_socket)(wi, w, &line, why))
		return false;
	if (wire_parse(line, a))
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
		if (have == 0 || (n < len && !wire_await_input(wi->fd, w, why)))
			return false;
	}
	return true;
}

bool wire_raw(struct wire *wi, char *to, size_t len, struct wait *w, char why[WHY_BYTES])
{
	return (wi->shared ? shared_raw : raw_from_socket)(wi, to, len, w, why);
}

bool wire_has_input(struct wire *wi)
{
	char byte;

	if (!wi->shared)
		return recv(wi->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
	while (!wi->ended && shared_hear(wi))
		;
	return wi->ended || wire_has_shared(wi);
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

bool wire_is_over(struct wire *wi, struct wait *w)
{
	return atomic_load(&wi->over) || wait_ended(w) || (w->deadline && now_ms() >= w->deadline);
}

bool wire_send_on_socket(struct wire *wi, struct iovec *parts, int n, bool offer, struct wait *w)
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
		if (n > 0 && wire_is_over(wi, w))
			return false;
	}
	return true;
}

bool wire_send(struct wire *wi, struct iovec *parts, int n, bool offer, struct wait *w)
{
	if (wi->put_shared)
		return shared_put(wi, parts, n, w);
	return wire_send_on_socket(wi, parts, n, offer, w);
}

enum sent wire_try_send(struct wire *wi, const char *message, size_t len)
{
	ssize_t n;

	if (wi->shared)
		return shared_try_put(wi, message, len);
	n = send(wi->fd, message, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return NO_ROOM;
	return n == (ssize_t)len ? SENT : BROKEN;
}
