/*
 * bell.h - one bell for all waits of a process.
 *
 * A ring ends the sleep of all threads that listen at that moment. It takes no lock, because
 * tls_Cancel rings the bell, and may run in a signal handler.
 *
 * A bell uses a pipe into which nothing is written. Listeners poll the reading end of the pipe. To
 * ring the bell is to close the writing end: from then on poll(2) returns at once for each
 * listener. A pipe can be rung only once, so the next listener makes a new pipe. The last listener
 * of a rung pipe closes it.
 *
 * No listener misses a change. A thread that changes something rings after the change. A listener
 * takes the newest pipe, then looks for changes, and then sleeps. So it either sees the change, or
 * sleeps on a pipe that is rung after the change.
 */
#ifndef TLSPLUGIN_BELL_H
#define TLSPLUGIN_BELL_H

#include <pthread.h>
#include <stdatomic.h>

#include "owned.h"

/* The most pipes at a time: the newest pipe, and rung pipes that listeners have not left yet. */
enum { BELL_PIPES = 8 };

struct bell {
	pthread_mutex_t mu; /* guards read_end and users; held for a moment only */
	atomic_int newest;  /* the index of the newest pipe, or -1 */
	struct bell_pipe {
		struct owned *read_end;
		_Atomic(struct owned *) write_end; /* NULL: rung, or not in use */
		int users;                         /* threads that listen */
	} pipes[BELL_PIPES];
};

void bell_init(struct bell *b);
void bell_destroy(struct bell *b);

/* Begins to listen. *fd becomes the descriptor to poll with POLLIN. *fd is -1 if no pipe can be
 * made; then the caller must look for changes from time to time. Returns the index of the pipe, or
 * -1. The caller must pass the result to bell_leave, even if it is -1. */
int bell_listen(struct bell *b, int *fd);

/* Ends the listening. The parameter rung says whether poll(2) has returned an event of the
 * descriptor. */
void bell_leave(struct bell *b, int number, bool rung);

/* Safe in a signal handler. */
void bell_ring(struct bell *b);

#endif
