/*
 * channel.h - the handles of a session as the plugin knows them: for each connection its data
 * channel and how its two directions stand, and for a context its descriptor.
 *
 * A data channel is one end of a pair of stream sockets; tlsd has the other. What is sent on it
 * is written to the TLS connection, and what is received from it was read from there.
 *
 * mu of the process guards everything here, except where it says otherwise.
 */
#ifndef TLSPLUGIN_CHANNEL_H
#define TLSPLUGIN_CHANNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "owned.h"
#include "process.h"

enum { CHANNEL_BUCKETS = 1024 };

enum state {
	OPEN,
	ENDED_WELL, /* reading: the peer has ended its direction; writing: tls_Shutdown has */
	BROKEN_OFF, /* error says why */
	CUT_SHORT,  /* writing: a Write failed after some of it was sent */
};

struct direction {
	struct turn turn; /* the right to use the descriptor in this direction */
	enum state state;
	char *error; /* of BROKEN_OFF */
	struct kind kind; /* of the error */
	bool reported; /* writing: the host knows of the error */
};

struct channel {
	struct channel *next; /* in its bucket */
	int64_t handle;
	int refs;          /* the table's, and one for each thread that has a pointer */
	struct owned *fd;  /* NULL until there is one; it does not change after that */
	bool handshaking;  /* a tls_Handshake is under way */
	bool watched;      /* it takes part in tls_Wait */
	bool context;      /* it is one, and fd is readable while a client waits */
	bool handshake_later; /* of a context: the pair comes with tls_Handshake */
	int64_t timeout;   /* of a Read, in ms; 0: the session's */
	atomic_bool closing; /* tls_Close has begun; it may be read without mu */
	int64_t sent;      /* bytes; the thread with the turn to write has it */
	struct direction reading, writing;
	int idle_spins, skip_spins; /* of data.c; the thread with the turn to read has them */
};

struct channels {
	struct channel *buckets[CHANNEL_BUCKETS]; /* by the low bits of the handle */
};

/* The channel of a handle; NULL if there is none or, for channel_make, no memory for one. A caller
 * that keeps it beyond mu counts up refs, and gives it back by channel_release. */
struct channel *channel_find(struct channels *t, int64_t handle);
struct channel *channel_make(struct channels *t, int64_t handle);
void channel_release(struct channel *ch); /* it may be NULL */

/* Sets the error of a direction as the process's, and returns -1. After the error of reading, that
 * of writing is not raised by itself any more. */
int channel_raise(struct process *p, struct channel *ch, const struct direction *d);

/* Raises the error of writing, if there is one that the host does not know; ch may be NULL. Returns
 * whether it has. */
bool channel_raise_unreported(struct process *p, struct channel *ch);

/* Takes a channel out of the table, or all. It lives on until the last thread has released it. */
void channel_drop(struct channels *t, struct channel *ch);
void channels_drop_all(struct channels *t);

#endif
