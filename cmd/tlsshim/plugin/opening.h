/*
 * opening.h - opens the process's session.
 *
 * One thread at a time looks for a tlsd. If the search fails, the threads that waited for it fail
 * with the same error, and do not search again.
 */
#ifndef TLSPLUGIN_OPENING_H
#define TLSPLUGIN_OPENING_H

#include "session.h"

/* Returns the session for a call that needs no handle, with a reference; or NULL with the error
 * set. */
struct session *session_open(struct process *p, const struct call *c);

#endif
