/*
 * ahead.h - what runs ahead of the host on a connection.
 *
 * Writes. tls_Write need not wait for its answer: it returns when its request is
 * sent, and the answer is taken by whoever reads answers next. No error gets lost by
 * that: the first one on a connection is kept until a call on the connection has
 * raised it, and as long as there is one, nothing new is sent but a Close. A Write on what
 * is no open connection waits for its error. Order is
 * kept, because requests are sent in order. Nobody may be there to take the answers; so
 * they are bounded to what the socket has room for whatever happens, and what
 * is said in session.c of deadlocks holds. Beyond a bound a Write waits before
 * it is sent. Those that wait for the session's bounds do so in a queue, from which the oldest
 * is let go when half of the room is free, one at a time: so each has room for many
 * Writes before it waits again, and a thousand threads do not wake one another for each. But they do not wait
 * for what does not come: if for a tick no Write is answered, because no peer reads, a Write is
 * sent and waits for its own answer, as all do in strict mode.
 *
 * Reads. A short tls_Read asks for more than the host wants, and what is left
 * over is for the next ones. Reads of one connection take turns for that.
 *
 * mu is held in all functions here, except for stream_read.
 */
#ifndef TLSPLUGIN_AHEAD_H
#define TLSPLUGIN_AHEAD_H

#include "call.h"
#include "wire.h"

enum {
	READ_AHEAD_BYTES = 128 * 1024,

	/* Of one connection, without shared memory and with it. A Write that would be one too many waits until half of
	 * them are answered. */
	AHEAD_WRITES = 32,
	AHEAD_WRITES_SHARED = 128,
	AHEAD_BYTES = 2 * 1024 * 1024,

	/* Of a session. On the socket an answer takes about 1 KiB of the 208 KiB that there are as a rule, in shared
	 * memory less of RING_BYTES. */
	SESSION_AHEAD_WRITES = 64,
	SESSION_AHEAD_WRITES_SHARED = 256,
	SESSION_AHEAD_BYTES = 16 * 1024 * 1024,
};

struct session;

/* A connection. It exists from its handshake, or its first Read, until it is closed. */
struct stream {
	struct stream *next;
	int64_t handle;
	int users;   /* who have a pointer to it */
	bool ready;  /* its handshake is done: a Write on it makes sense */
	bool closed; /* it is no longer the session's */

	unsigned most;   /* Writes that may run ahead */
	unsigned writes; /* that do */
	size_t bytes;    /* in these */
	int draining;    /* threads that wait until there are less */
	char *error;     /* of the first that has failed, until it is raised; else NULL */

	struct turn reading; /* the right to read */
	char *data;          /* that was read ahead: at[used] up to at[have] */
	size_t used, have;
};

/* The stream of a handle, to be released; or NULL if there is none yet or, for
 * stream_make, no memory for it. */
struct stream *stream_find(struct session *s, int64_t handle);
struct stream *stream_make(struct session *s, int64_t handle);
void stream_release(struct stream *st);

/* Notes that a connection can be written to. Without memory for that, its Writes are strict. */
void stream_make_ready(struct session *s, int64_t handle);

/* Parts it from the session, when its connection is closed or the session gone. */
void stream_close(struct session *s, struct stream *st);
void stream_close_all(struct session *s);

/* Whether one more Write may be sent ahead, as far as the connection is concerned. */
bool ahead_has_room(const struct stream *st, size_t len);

/* Whether so few run ahead that those who wait for room can go on. */
bool ahead_is_low(const struct stream *st);

/* What comes before a call on a connection on which something may run ahead. False if
 * the call ends there; then it is done. */
bool ahead_make_way(struct process *p, struct session *s, struct stream *st, struct call *c);

/* Waits until the Writes that ran ahead of a Close, which is answered, have been answered, too. */
void ahead_collect(struct process *p, struct session *s, struct stream *st, struct call *c);

/* Notes, from time to time, whether answers to Writes come, while there is a queue. */
void ahead_look(struct session *s);

/* Takes a call out of the session's queue, or all. They are then done. */
void ahead_dequeue(struct session *s, struct call *c);
void ahead_dequeue_all(struct session *s);

/* Has the call raise the error of a Write that ran ahead, if there is one and the call
 * is of no avail, or the last. */
void ahead_raise(struct stream *st, struct call *c);

/* Puts a call on the heap into the place of c, a Write whose request is sent, if it may run ahead. False
 * if it has to wait for its answer. */
bool ahead_go(struct session *s, struct stream *st, struct call *c);

/* A Write that runs ahead is answered, with a or, if that is NULL, never. It is freed. */
void ahead_end(struct session *s, struct call *c, const struct answer *a);

/* A Read. It returns like call_run. mu is not held. */
int stream_read(struct process *p, struct session *s, struct call *c);

#endif
