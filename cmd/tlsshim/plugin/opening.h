/*
 * opening.h - opens the process's session.
 *
 * One thread at a time looks for a tlsd. If the search fails, the threads that waited for it fail
 * with the same error, and do not search again.
 */
#ifndef TLSPLUGIN_OPENING_H
#define TLSPLUGIN_OPENING_H

#include "session.h"

/* The session for a call that needs no handle. If there is none, the function opens it. The caller
 * gets a reference to the session. If the function fails, it returns NULL and sets the error.
 * For a QUIET method (call.h) it sets the error only if the call was cancelled. */
struct session *session_open(struct process *p, const struct call *c);

#endif
