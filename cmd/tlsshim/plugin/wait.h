/*
 * wait.h - how the plugin waits where a wait may be long. A wait is for descriptors and for the
 * bell at the same time. It can have a deadline, and it can be ended early.
 */
#ifndef TLSPLUGIN_WAIT_H
#define TLSPLUGIN_WAIT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "bell.h"

/* The longest sleep of a wait that must look again and again. There are two such waits: in one, the
 * member tick is true. In the other, the process had no descriptors for the pipe of the bell, so
 * no ring can end the sleep. */
enum { TICK_MS = 100 };

struct wait {
	int64_t deadline;  /* a time of now_ms(); 0: none */
	struct bell *bell;
	bool tick;         /* look() must run at least every TICK_MS */
	bool ended;        /* look() sets it: the wait is over */
	void (*look)(struct wait *w); /* called before each sleep; must not change look and bell */
	const char *why;   /* look() sets it: why there was no event, for an error text; or NULL */
};

/* READY: an event has come. LATE: the deadline has passed. ENDED: look() has ended the wait.
 * FAILED: see errno. */
enum waited { READY, LATE, ENDED, FAILED };

/* Waits for events on fd. If fd is -1, it waits only for the deadline or an early end. */
enum waited wait_for(int fd, short events, struct wait *w);

/* Waits for the events of n descriptors. fds must have room for one more. */
enum waited wait_for_any(struct pollfd *fds, size_t n, struct wait *w);

/* Looks whether the wait is over. It does not sleep. */
bool wait_ended(struct wait *w);

/* Milliseconds of the monotonic clock. */
int64_t now_ms(void);

#endif
