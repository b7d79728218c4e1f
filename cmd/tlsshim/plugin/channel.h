/*
 * channel.h - what the plugin knows of each handle of a session: a struct channel. For a connection
 * it has the data channel and the state of the two directions. For a context it has the
 * descriptor that is readable while a client waits (tls.Signal).
 *
 * A data channel is a pair of connected stream sockets. The member fd is the plugin's end, and tlsd
 * has the other end. tlsd receives bytes from the channel, and writes them to the TLS connection.
 * It reads bytes from the TLS connection, and sends them on the channel.
 *
 * mu of the process guards everything here, except where a comment says otherwise.
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
	ENDED_WELL, /* reading: the peer has ended it; writing: tls_Shutdown has ended it */
	BROKEN_OFF, /* the member error says why */
	CUT_SHORT,  /* writing: a Write has failed, but the peer may get a part of its bytes */
};

struct direction {
	struct turn turn; /* the right to use the descriptor in this direction */
	enum state state;
	char *error; /* the error's text, if the state is BROKEN_OFF; NULL: tlsd gave none */
	struct kind kind; /* the kind of the error */
	bool reported; /* writing: the host knows of the error */
};

struct channel {
	struct channel *next; /* in its bucket */
	int64_t handle;
	int refs;          /* references: one of the table, and one of each thread with a pointer */
	struct owned *fd;  /* the descriptor; NULL at first; once set, it does not change */
	bool handshaking;  /* a tls_Handshake is under way */
	bool watched;      /* it takes part in tls_Wait */
	bool context;      /* the handle is a context; fd is readable while a client waits */
	bool handshake_later; /* a context whose option handshake is "later" */
	int64_t timeout;   /* the timeout of a Read, in ms; 0: the session's */
	atomic_bool closing; /* a Close has begun; the member may be read without mu */
	int64_t sent;      /* the bytes that tls_Writes have put on the channel so far */
	struct direction reading, writing;
	/* Used by spin() in data.c. They belong to the thread with the turn to read. */
	int idle_spins, skip_spins;
};

struct channels {
	struct channel *buckets[CHANNEL_BUCKETS]; /* by the low bits of the handle */
};

/* channel_find returns the channel of a handle, or NULL if there is none. channel_make does the
 * same, but if there is no channel, it makes one. It returns NULL if there is no memory. A caller
 * that keeps the channel after it has given up mu must count up refs, and call channel_release
 * later. */
struct channel *channel_find(struct channels *t, int64_t handle);
struct channel *channel_make(struct channels *t, int64_t handle);
void channel_release(struct channel *ch); /* it may be NULL */

/* The error of the direction d becomes the last error (error.h). The host gets one error of a
 * channel, not two. So the function marks the error of writing as reported, even if d is the
 * direction of reading. Returns -1. */
int channel_raise(struct process *p, struct channel *ch, const struct direction *d);

/* Raises the error of writing, if there is one that the host does not know. If the host has written
 * nothing, it has lost nothing, and the function raises no error. Only a tls_Write fails then.
 * Returns whether it has raised an error. ch may be NULL. */
bool channel_raise_unreported(struct process *p, struct channel *ch);

/* Take a channel, or all channels, out of the table. A channel lives on until the last thread has
 * released it. */
void channel_drop(struct channels *t, struct channel *ch);
void channels_drop_all(struct channels *t);

#endif
