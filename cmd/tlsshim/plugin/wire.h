/*
 * wire.h - lines of JSON to and from tlsd on the control socket, as proto.md describes them.
 *
 * Nothing here knows calls or locks. One thread at a time may read, and one may write. The library
 * does not trust tlsd, so the length of a line is limited. The kernel drops descriptors that tlsd
 * might send, because no recv(2) here has room for them.
 */
#ifndef TLSPLUGIN_WIRE_H
#define TLSPLUGIN_WIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"
#include "owned.h"
#include "wait.h"

enum {
	WHY_BYTES = 1024,             /* room for a reason */
	LINE_MAX_BYTES = 1024 * 1024, /* longest line of an answer */
};

/* Why a session is lost after the host has closed or replaced a descriptor. */
#define WIRE_REPLACED "this program has closed descriptors of the TLS plugin"

struct wire {
	struct owned *sock;
	atomic_bool over; /* nothing can be sent any more */

	/* Only the reading thread uses these members. The bytes from at[used] to at[have - 1] were
	 * received and not yet used. */
	char *at;
	size_t used, have, cap;
};

/* Closes the socket and frees the input. */
void wire_free(struct wire *wi);

/* Says whether the socket is still ours. It is not if the host has closed or replaced it. */
bool wire_is_ours(const struct wire *wi);

/* Shuts the socket down: nothing can be sent or received any more. Any thread may call it at any
 * time. */
void wire_end(struct wire *wi);

/* Reads the next line, which is valid until the next wire_read. On failure returns false, with the
 * reason in why. */
bool wire_read(struct wire *wi, struct wait *w, struct span *line, char why[WHY_BYTES]);

/* Says whether bytes, or the end of the stream, can be read at once. No thread may be reading. */
bool wire_has_input(const struct wire *wi);

/* Sends the lines, and with their first byte the descriptors in pass. pass may be NULL, and so may
 * each of its two members. Returns false if sending fails, or if the wait w ends before all is
 * sent. */
bool wire_send(struct wire *wi, const char *lines, size_t len, struct owned *const pass[2],
	       struct wait *w);

/* Sends a short line. Returns false if nothing was sent, and a new try can succeed: the socket has
 * no room now, or a signal came. Otherwise returns true, even if the sending has failed or only a
 * part of the line was sent. After such a failure the function has called wire_end. No other thread
 * may be sending. */
bool wire_try_send(struct wire *wi, const char *line, size_t len);

#endif
