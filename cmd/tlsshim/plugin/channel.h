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
	bool told;   /* writing: the host knows of the error */
};

struct channel {
	struct channel *next; /* in its bucket */
	int64_t handle;
	int refs;          /* the table's, and one for each thread that has a pointer */
	struct owned *fd;  /* NULL until there is one; it does not change after that */
	bool unshaken;     /* it came with tls_Accept, and the handshake is still to be done */
	bool shaking;      /* a tls_Handshake is under way */
	bool watched;      /* it takes part in tls_Wait */
	bool context;      /* it is one, and fd is readable while a client waits */
	bool later;        /* of a context: its connections are unshaken */
	int64_t timeout;   /* of a Read, in ms; 0: the session's */
	bool closing;      /* tls_Close has begun */
	int64_t sent;      /* bytes; belongs to who has the turn to write */
	struct direction reading, writing;
	int idle_spins, skip_spins; /* of data.c; belong to who has the turn to read */
};

struct channels {
	struct channel *buckets[CHANNEL_BUCKETS]; /* by the low bits of the handle */
};

/* The channel of a handle with a reference; NULL if there is none or, for channel_make, no
 * memory for one. */
struct channel *channel_find(struct channels *t, int64_t handle);
struct channel *channel_make(struct channels *t, int64_t handle);
void channel_release(struct channel *ch);

/* Takes a channel out of the table, or all. It lives on until the last thread has released it. */
void channel_drop(struct channels *t, struct channel *ch);
void channels_drop_all(struct channels *t);

#endif
