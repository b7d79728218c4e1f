/*
 * wire.h - lines of JSON to and from tlsd on the control socket, as proto.md describes them.
 *
 * Nothing here knows calls or locks. One thread at a time may read, one may write. tlsd is not
 * trusted: a line has a bound. Descriptors that tlsd might send are dropped by the kernel, because
 * no recv(2) here has room for them.
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

/* Why a session is lost whose descriptors are no longer those that they were. */
#define WIRE_REPLACED "this program has closed descriptors of the TLS plugin"

struct wire {
	struct owned *sock;
	atomic_bool over; /* nothing can be sent any more */

	/* The reader's: what has been received and not yet been used, at[used] up to at[have]. */
	char *at;
	size_t used, have, cap;
};

/* Closes the socket and frees the input. */
void wire_free(struct wire *wi);

/* Whether the socket is still the one that it was. */
bool wire_is_ours(const struct wire *wi);

/* Makes the end of the session known to both sides. Can be called at any time. */
void wire_end(struct wire *wi);

/* Reads the next line, which lives until the next wire_read. If it fails, why says so. */
bool wire_read(struct wire *wi, struct wait *w, struct span *line, char why[WHY_BYTES]);

/* Whether there is something to read, be it the end. Nobody reads. */
bool wire_has_input(const struct wire *wi);

/* Sends the lines, and with their first byte the descriptors of pass, of which each may be NULL.
 * False if not all can be sent before w is over. */
bool wire_send(struct wire *wi, const char *lines, size_t len, struct owned *const pass[2],
	       struct wait *w);

/* Sends a short line. False if there is no room for all of it. No other thread is sending. If it
 * fails, the session ends. */
bool wire_try_send(struct wire *wi, const char *line, size_t len);

#endif
