/*
 * opening.h - opens the process's session.
 *
 * One thread at a time looks for a tlsd. A search that fails counts for all threads that waited for
 * it.
 */
#ifndef TLSPLUGIN_OPENING_H
#define TLSPLUGIN_OPENING_H

#include "session.h"

/* Returns the session for a call that needs no handle, with a reference; or NULL with the error
 * set. */
struct session *session_open(struct process *p, const struct call *c);

#endif
