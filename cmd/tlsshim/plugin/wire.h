/*
 * wire.h - messages on the socket, as proto.md describes them: a line of JSON,
 * and raw bytes behind it if it announces them.
 *
 * Nothing here knows calls or locks. One thread at a time may read, one may
 * write. What the other side sends is never trusted: a line has a bound, and
 * an answer is checked before it is handed out.
 */
#ifndef TLSPLUGIN_WIRE_H
#define TLSPLUGIN_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "json.h"
#include "wait.h"

enum {
	WHY_BYTES = 1024,            /* room for a reason */
	LINE_MAX_BYTES = 1024 * 1024, /* longest line of an answer */
	RAW_MAX_BYTES = 16777216,    /* largest blob */
};

/* What has been received and not yet been used: at[used] up to at[have]. */
struct input {
	char *at;
	size_t used, have, cap;
};

struct answer {
	bool id_null; /* it belongs to no call: tlsd tells why it ends the session */
	int64_t id;
	struct span error; /* the message of an error, a string; else none */
	struct span result;
	bool has_raw;
	size_t raw; /* bytes that follow, to be fetched with wire_raw */
};

/* Reads the next answer. Its spans live until the next wire_ call on the input.
 * If it fails, why says so, and the place where the next message starts is lost. */
bool wire_read(int fd, struct input *in, struct wait *w, struct answer *a, char why[WHY_BYTES]);

/* Reads the raw bytes of the answer just read. fd has SO_RCVTIMEO. */
bool wire_raw(int fd, struct input *in, char *to, size_t len, struct wait *w, char why[WHY_BYTES]);

/* Sends all of it, or as much as can be sent before w is over; it does not
 * listen to the bell but looks at every tick. fd has SO_SNDTIMEO. Changes parts. */
bool wire_send(int fd, struct iovec *parts, int n, struct wait *w);

#endif
