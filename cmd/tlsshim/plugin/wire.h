/*
 * wire.h - messages to and from tlsd, as proto.md describes them: a line of JSON,
 * and raw bytes behind it if it announces them.
 *
 * At first they go over the socket. When tlsd has agreed to it, they go through
 * shared memory (ring.h), and the socket has only bells, which are empty lines, and
 * the last words of a session.
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
#include "ring.h"
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

struct wire {
	int fd;
	struct rings rings;
	bool shared;    /* messages go through rings; set by wire_share */
	atomic_bool over; /* nothing can be sent any more */

	/* Of who sends. */
	bool put_shared; /* its message goes through the rings: shared, as it was before the message */
	bool moved;      /* tlsd has been told that messages go through the rings from now on */

	/* Of who reads. */
	struct input in;         /* from the socket, or a line from the rings */
	atomic_uint sleep_for;   /* a value of ring.h: for what to wake who reads from the rings */
	char last[2 * WHY_BYTES]; /* what else has come over the socket: last words */
	size_t last_len;
	bool ended;              /* no more comes over the socket */
};

struct answer {
	bool id_null; /* it belongs to no call: tlsd tells why it ends the session */
	int64_t id;
	struct span error; /* the message of an error, a string; else none */
	struct span result;
	bool has_raw;
	size_t raw; /* bytes that follow, to be fetched with wire_raw */
};

/* Takes the socket over, with SO_RCVTIMEO and SO_SNDTIMEO, and makes shared memory to offer to tlsd, if share says so. */
void wire_init(struct wire *wi, int fd, bool share);
void wire_free(struct wire *wi);

/* Makes the end of the session known to both sides. Can be called at any time. */
void wire_end(struct wire *wi);

/* Goes on through the rings, after the answer just read. Nobody is sending who has not noted put_shared. */
void wire_share(struct wire *wi);

/* The reason in a message that tlsd ends a session with: without "lost: ", which the host is told anyway. */
const char *answer_reason(const char *message);

/* Takes a line apart; false if it is no answer of JSON-RPC 2.0. (parse.c) */
bool wire_parse(struct span line, struct answer *a);

/* Reads the next answer. Its spans live until the next wire_ call that reads.
 * If it fails, why says so, and the place where the next message starts is lost. */
bool wire_read(struct wire *wi, struct wait *w, struct answer *a, char why[WHY_BYTES]);

/* Reads the raw bytes of the answer just read. */
bool wire_raw(struct wire *wi, char *to, size_t len, struct wait *w, char why[WHY_BYTES]);

/* Whether there is something to read, be it the end. Nobody reads. */
bool wire_has_input(struct wire *wi);

/* Whether there is something in the rings. */
bool wire_has_shared(const struct wire *wi);

/* Who reads wants to be woken for answers to Writes too, from now on. True if it has to look whether there are such already. */
bool wire_sleep_for_all(struct wire *wi);

/* Sends all of it, or as much as can be sent before w is over; it does not
 * listen to the bell but looks at every tick. Changes parts. offer says that the shared memory goes along. */
bool wire_send(struct wire *wi, struct iovec *parts, int n, bool offer, struct wait *w);

enum sent { SENT, NO_ROOM, BROKEN };

/* Sends a short message if there is room for all of it. Nobody else is sending. */
enum sent wire_try_send(struct wire *wi, const char *message, size_t len);

#endif
