#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "text.h"

enum { FIRST_BYTES = 32 * 1024 }; /* of the input; holds an answer with a TLS record's data */

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int wait_readable(int fd, int64_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = deadline - now_ms();
		int n = poll(&p, 1, left > 0 ? (int)left : 0);

		if (n >= 0)
			return n;
		if (errno != EINTR)
			return -1;
	}
}

/* At most len bytes; 0 if there are no more, with the reason in why. */
static size_t receive(int fd, char *to, size_t len, int64_t deadline, int flags, char *why)
{
	ssize_t n;

	if (deadline) {
		n = wait_readable(fd, deadline);
		if (n == 0)
			text_add(why, WHY_BYTES, "tlsd has not answered in time");
		if (n < 0)
			text_add(why, WHY_BYTES, "poll: %s", errno_text(errno));
		if (n <= 0)
			return 0;
	}
	do
		n = recv(fd, to, len, flags);
	while (n < 0 && errno == EINTR);
	if (n == 0)
		text_add(why, WHY_BYTES, "tlsd has closed the session");
	if (n < 0)
		text_add(why, WHY_BYTES, "tlsd is gone: %s", errno_text(errno));
	return n > 0 ? (size_t)n : 0;
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

static bool read_line(int fd, struct input *in, int64_t deadline, struct span *line, char *why)
{
	size_t searched = 0, n; /* bytes of the line that have no line feed */

	for (;;) {
		size_t have = in->have - in->used;
		const char *start = in->at + in->used;
		const char *feed = have > searched ? memchr(start + searched, '\n', have - searched) : NULL;

		if (feed) {
			*line = (struct span){ start, (size_t)(feed - start) };
			in->used += line->len + 1;
			return true;
		}
		searched = have;
		if (!make_room(in, why))
			return false;
		n = receive(fd, in->at + in->have, in->cap - in->have, deadline, 0, why);
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

bool wire_read(int fd, struct input *in, int64_t deadline, struct answer *a, char why[WHY_BYTES])
{
	struct span line;

	if (!read_line(fd, in, deadline, &line, why))
		return false;
	if (take_apart(line, a))
		return true;
	text_add(why, WHY_BYTES, "tlsd has sent a line that is no answer of JSON-RPC 2.0");
	return false;
}

bool wire_raw(int fd, struct input *in, char *to, size_t len, char why[WHY_BYTES])
{
	size_t have = in->have - in->used, n = len < have ? len : have;

	if (n > 0)
		memcpy(to, in->at + in->used, n);
	in->used += n;
	for (; n < len; n += have) {
		have = receive(fd, to + n, len - n, 0, MSG_WAITALL, why);
		if (have == 0)
			return false;
	}
	return true;
}

bool wire_send(int fd, struct iovec *parts, int n)
{
	while (n > 0) {
		struct msghdr m = { .msg_iov = parts };
		ssize_t sent;

		if (parts->iov_len == 0) {
			parts++;
			n--;
			continue;
		}
		m.msg_iovlen = (size_t)n;
		sent = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		for (; n > 0 && (size_t)sent >= parts->iov_len; parts++, n--)
			sent -= (ssize_t)parts->iov_len;
		if (n > 0) {
			parts->iov_base = (char *)parts->iov_base + sent;
			parts->iov_len -= (size_t)sent;
		}
	}
	return true;
}
