#define _POSIX_C_SOURCE 200809L
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "system.h"
#include "text.h"

enum { FIRST_BYTES = 4096 /* the input buffer at first; enough for nearly every answer */ };

/* --- life --- */

void wire_free(struct wire *wi)
{
	owned_close(wi->sock);
	free(wi->at);
}

bool wire_is_ours(const struct wire *wi)
{
	return owned_fd(wi->sock) >= 0;
}

void wire_end(struct wire *wi)
{
	int fd = owned_fd(wi->sock);

	atomic_store(&wi->over, true);
	if (fd >= 0)
		shutdown(fd, SHUT_RDWR); /* wakes threads that wait on the socket */
}

/* --- reading --- */

/* Receives at most len bytes. Returns the number of bytes. Returns 0, with the reason in why, if no
 * bytes will come. */
static size_t receive(struct wire *wi, char *to, size_t len, struct wait *w, char *why)
{
	for (;;) {
		int fd = owned_fd(wi->sock);
		enum waited waited = fd < 0 ? READY : wait_for(fd, POLLIN, w);
		ssize_t n = -1;

		if (waited == READY) {
			fd = owned_fd(wi->sock);
			if (fd < 0) {
				text_add(why, WHY_BYTES, WIRE_REPLACED);
				return 0;
			}
			n = sys_recv(fd, to, len);
		}
		if (n > 0)
			return (size_t)n;
		if (n == 0)
			text_add(why, WHY_BYTES, "tlsd has closed the session");
		else if (waited == FAILED)
			text_add(why, WHY_BYTES, "poll: %s", errno_text(errno));
		else if (waited != READY)
			text_add(why, WHY_BYTES, "%s",
				 w->why ? w->why : "tlsd has not answered in time");
		else if (errno == EAGAIN || errno == EINTR)
			continue;
		else
			text_add(why, WHY_BYTES, "tlsd is gone: %s", errno_text(errno));
		return 0;
	}
}

/* Makes room for more input. */
static bool make_room(struct wire *wi, char *why)
{
	size_t cap = wi->cap ? wi->cap * 2 : FIRST_BYTES;
	char *grown;

	if (wi->used > 0) {
		wi->have -= wi->used;
		memmove(wi->at, wi->at + wi->used, wi->have);
		wi->used = 0;
	}
	if (wi->have < wi->cap)
		return true;
	if (cap > LINE_MAX_BYTES) {
		text_add(why, WHY_BYTES, "tlsd has sent a line of more than %d bytes",
			 LINE_MAX_BYTES);
		return false;
	}
	grown = realloc(wi->at, cap);
	if (!grown) {
		text_add(why, WHY_BYTES, "out of memory");
		return false;
	}
	wi->at = grown;
	wi->cap = cap;
	return true;
}

bool wire_read(struct wire *wi, struct wait *w, struct span *line, char why[WHY_BYTES])
{
	size_t searched = 0, n; /* searched: bytes already searched for a line feed */

	for (;;) {
		size_t have = wi->have - wi->used;
		const char *start = have > 0 ? wi->at + wi->used : NULL; /* wi->at may be NULL */
		const char *feed = have > searched ? memchr(start + searched, '\n',
							    have - searched) : NULL;

		if (feed) {
			*line = (struct span){ start, (size_t)(feed - start) };
			wi->used += line->len + 1;
			return true;
		}
		searched = have;
		if (!make_room(wi, why))
			return false;
		n = receive(wi, wi->at + wi->have, wi->cap - wi->have, w, why);
		if (n == 0)
			return false;
		wi->have += n;
	}
}

bool wire_has_input(const struct wire *wi)
{
	int fd = owned_fd(wi->sock);

	return fd < 0 || wi->have > wi->used || sys_has_input(fd);
}

/* --- sending --- */

bool wire_send(struct wire *wi, const char *lines, size_t len, struct owned *const pass[2],
	       struct wait *w)
{
	while (len > 0) {
		int fd = owned_fd(wi->sock), fds[2] = { -1, -1 };
		size_t passed = 0;
		ssize_t n;

		if (fd < 0 || atomic_load(&wi->over))
			return false;
		/* A descriptor that is no longer ours is left out. Then tlsd refuses the call. */
		for (int i = 0; pass && i < 2; i++) {
			fds[passed] = owned_fd(pass[i]);
			passed += fds[passed] >= 0;
		}
		n = sys_send_with(fd, lines, len, fds, passed);
		if (n > 0) {
			lines += n;
			len -= (size_t)n;
			pass = NULL;
		} else if (n < 0 && errno == EAGAIN) {
			if (wait_for(fd, POLLOUT, w) != READY)
				return false;
		} else if (n < 0 && errno != EINTR) {
			return false;
		}
	}
	return true;
}

bool wire_try_send(struct wire *wi, const char *line, size_t len)
{
	int fd = owned_fd(wi->sock);
	ssize_t n = fd < 0 ? 0 : sys_send(fd, line, len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n != (ssize_t)len)
		wire_end(wi);
	return true;
}
