/*
 * bell.h - one bell for all waits of a process. A ring ends the sleep of each thread that
 * listens at that moment, any number of them, and takes no lock: tls_Cancel rings it, in a
 * signal handler too.
 *
 * A bell is a pipe in which nothing is ever written. Listeners poll its reading end. To ring is
 * to close the writing end: from then on poll(2) returns at once for each listener, for ever.
 * Such a pipe has rung; the next listener makes a new one. A rung pipe is closed when its last
 * listener has left it.
 *
 * Nobody is missed. The ringer first changes what the ring is about, and then rings. A listener
 * first takes the newest pipe, then looks at what rings are about, and then sleeps. So it either
 * sees the change, or sleeps on a pipe that is rung after that.
 */
#ifndef TLSPLUGIN_BELL_H
#define TLSPLUGIN_BELL_H

#include <pthread.h>
#include <stdatomic.h>

#include "owned.h"

enum { BELL_PIPES = 8 }; /* the newest, and rung ones whose listeners have not run yet */

struct bell {
	pthread_mutex_t mu; /* guards listen and users; held for a moment only */
	atomic_int newest;  /* of pipes, or -1 */
	struct bell_pipe {
		struct owned *read_end;
		_Atomic(struct owned *) write_end; /* the writing end; NULL: rung, or not in use */
		int users;                    /* threads that listen */
	} pipes[BELL_PIPES];
};

void bell_init(struct bell *b);
void bell_destroy(struct bell *b);

/* Begins to listen. *fd is what to poll with POLLIN, or -1: there can be no pipe, so that the
 * caller has to look from time to time. Returns what bell_leave wants. */
int bell_listen(struct bell *b, int *fd);

/* Ends that. rung says that poll has returned an event of *fd. */
void bell_leave(struct bell *b, int which, bool rung);

/* Safe in a signal handler. */
void bell_ring(struct bell *b);

#endif
