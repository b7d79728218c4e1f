#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "text.h"

enum {
	FIRST_BYTES = 32 * 1024, /* of the input; holds an answer with a TLS record's data */
	PIECE_BYTES = 256 * 1024, /* of a message; between two of them it is seen whether to go on */
};

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

/* At most len bytes; 0 if there are no more, with the reason in why. The flags
 * make sure that recv(2) does not wait for longer than a tick. */
static size_t receive(int fd, char *to, size_t len, int flags, struct wait *w, char *why)
{
	for (;;) {
		ssize_t n = recv(fd, to, len, flags);

		if (n > 0)
			return (size_t)n;
		if (n == 0) {
			text_add(why, WHY_BYTES, "tlsd has closed the session");
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

static bool read_line(int fd, struct input *in, struct wait *w, struct span *line, char *why)
{
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
		n = receive(fd, in->at + in->have, in->cap - in->have, MSG_DONTWAIT, w, why);
		if (n == 0)
			return false;
		in->have += n;
	}
}

static bool take_apart(struct span line, struct answer *a)
{
	struct span id, error, raw;
	int64_t n;

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

bool wire_read(int fd, struct input *in, struct wait *w, struct answer *a, char why[WHY_BYTES])
{
	struct span line;

	if (!read_line(fd, in, w, &line, why))
		return false;
	if (take_apart(line, a))
		return true;
	text_add(why, WHY_BYTES, "tlsd has sent a line that is no answer of JSON-RPC 2.0");
	return false;
}

bool wire_raw(int fd, struct input *in, char *to, size_t len, struct wait *w, char why[WHY_BYTES])
{
	size_t have = in->have - in->used, n = len < have ? len : have;

	if (n > 0)
		memcpy(to, in->at + in->used, n);
	in->used += n;
	while (n < len) {
		have = receive(fd, to + n, len - n, MSG_WAITALL, w, why);
		n += have;
		/* Only part of it has come in a tick. Another is not granted blindly: a tlsd that
		 * sends byte after byte could use up any number of them. */
		if (have == 0 || (n < len && !await_input(fd, w, why)))
			return false;
	}
	return true;
}

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

bool wire_send(int fd, struct iovec *parts, int n, struct wait *w)
{
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
		sent = sendmsg(fd, &m, MSG_NOSIGNAL);
		parts[m.msg_iovlen - 1].iov_len = whole;
		if (sent < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		for (; n > 0 && sent > 0 && (size_t)sent >= parts->iov_len; parts++, n--)
			sent -= (ssize_t)parts->iov_len;
		if (n > 0 && sent > 0) {
			parts->iov_base = (char *)parts->iov_base + sent;
			parts->iov_len -= (size_t)sent;
		}
		if (n > 0 && (wait_ended(w) || (w->deadline && now_ms() >= w->deadline)))
			return false;
	}
	return true;
}
