/*
 * client.h - calls to tlsd over the process's session.
 *
 * The session is opened by the first call that needs one, and lives until tlsd or its worker
 * goes away. Then every call that waits on it fails as lost, and so does every later call on
 * one of its handles; the next call that can do without a handle opens a new session. No call
 * is ever sent twice.
 */
#ifndef TLSPLUGIN_CLIENT_H
#define TLSPLUGIN_CLIENT_H

#include "session.h"

/* Makes the call and waits for its answer. Returns 0, or -1 with the process's error set.
 * c->pass is closed in any case. p may be NULL. */
int client_call(struct process *p, struct call *c);

/* The same, with the call's parameters: the handle unless it OPENS, the texts, the number, and 1
 * for a descriptor that goes along. */
int client_run(struct process *p, struct call *c);

/* The session of a handle with a reference, for a call with this name; or NULL and the error set.
 * If the call uses the handle's channel, *ch is that, with a reference, or NULL. */
struct session *client_session(struct process *p, const char *op, int64_t handle,
			       struct channel **ch);

/* tls.SetCaBundle for this session and those to come. Returns like client_call. */
int client_trust(struct process *p, const char *path);

/* tls.SetTimeout of the handle 0, for this session and those to come. Returns like client_call. */
int client_bound(struct process *p, int32_t milliseconds);

/* For the end of the library, when no call is going on: ends the process's session. */
void client_end(struct process *p);

#endif
