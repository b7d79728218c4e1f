/*
 * wait.h - waits that have a bound and that can be ended.
 *
 * A bell is an eventfd(2). It goes on ringing until its listener has heard it,
 * so it does not matter whether it was rung before the wait or during it. But
 * only one thread at a time may listen to it.
 */
#ifndef TLSPLUGIN_WAIT_H
#define TLSPLUGIN_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* How long a system call may wait in which a bell cannot be heard. */
enum { TICK_MS = 100 };

struct wait {
	int64_t deadline; /* a now_ms() time; 0: none */
	int bell;         /* or -1 */
	bool tick;        /* look at every tick */
	bool ready;       /* set by look: what is waited for is there, but not on fd */
	bool ended;       /* set by look: the wait is over */
	void (*look)(struct wait *w); /* called when the bell has rung, and at a tick; may change all but itself */
	const char *why;  /* it is over, if ended or the deadline says so; or NULL */
};

enum waited { READY, LATE, ENDED, FAILED /* see errno */ };

/* Waits for events on fd, which may be -1. */
enum waited wait_for(int fd, short events, struct wait *w);

/* Looks, without a wait, whether the wait is over. */
bool wait_ended(struct wait *w);

/* Milliseconds of the monotonic clock. */
int64_t now_ms(void);

#endif
