/*
 * wait.h - each wait of the library that may last. It is for a descriptor and for the bell at the
 * same time. It can have a bound, and it can be ended.
 */
#ifndef TLSPLUGIN_WAIT_H
#define TLSPLUGIN_WAIT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "bell.h"

/* The longest sleep of a thread that has no bell to listen to. */
enum { TICK_MS = 100 };

struct wait {
	int64_t deadline;  /* a now_ms() time; 0: none */
	struct bell *bell;
	bool tick;         /* look at every tick, too */
	bool ended;        /* set by look: the wait is over */
	void (*look)(struct wait *w); /* called before each sleep; may not change itself and bell */
	const char *why;   /* it is over, if ended or the deadline says so; or NULL */
};

enum waited { READY, LATE, ENDED, FAILED /* see errno */ };

/* Waits for events on fd, which may be -1. */
enum waited wait_for(int fd, short events, struct wait *w);

/* Waits for the events of n descriptors; fds has room for one more. */
enum waited wait_for_any(struct pollfd *fds, size_t n, struct wait *w);

/* Looks, without a wait, whether the wait is over. */
bool wait_ended(struct wait *w);

/* Milliseconds of the monotonic clock. */
int64_t now_ms(void);

#endif
