/*
 * watch.h - tls_Wait: the wait for whichever watched handle is ready first.
 *
 * It polls the descriptors of these handles, and costs no call to tlsd.
 */
#ifndef TLSPLUGIN_WATCH_H
#define TLSPLUGIN_WATCH_H

#include <stdint.h>

#include "channel.h"
#include "process.h"

/* A handle that is ready, 0 if there is none within so many milliseconds, or -1 and the error set.
 * Negative milliseconds are no bound. */
int64_t watch_wait(struct process *p, int32_t milliseconds);

/* Makes the threads in tls_Wait look again, because a handle has changed, other than by its
 * descriptor. mu is held. */
void watch_changed(struct process *p, const struct channel *ch);

/* Makes a handle take part in tls_Wait, or no more. mu is not held. */
void watch_set(struct process *p, struct channel *ch, bool on);

#endif
