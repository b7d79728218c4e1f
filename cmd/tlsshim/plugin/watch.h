/*
 * watch.h - tls_Wait, which waits until one of the watched handles is ready.
 *
 * It polls the descriptors of these handles, and makes no call to tlsd.
 */
#ifndef TLSPLUGIN_WATCH_H
#define TLSPLUGIN_WATCH_H

#include <stdint.h>

#include "channel.h"
#include "process.h"

/* Returns a ready handle, 0 if no handle is ready within so many milliseconds, or -1 with the error
 * set. Negative milliseconds are no timeout. */
int64_t watch_wait(struct process *p, int32_t milliseconds);

/* Call this function after each change of a handle that poll(2) of its descriptor does not show. If
 * the handle is watched, the threads in tls_Wait look again. mu is held. */
void watch_changed(struct process *p, const struct channel *ch);

/* Sets whether a handle takes part in tls_Wait. mu is not held. */
void watch_set(struct process *p, struct channel *ch, bool on);

#endif
