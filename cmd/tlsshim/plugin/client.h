/*
 * client.h - calls to tlsd over the process's session.
 *
 * The session is opened by the first call that needs one, and lives until tlsd or its worker
 * goes away. Then every call that waits on it fails as lost, and so does every later call on
 * one of its handles. The next call that can do without a handle opens a new session. No call
 * is ever sent twice.
 *
 * The process's settings are the CA bundle and the bound of tls_NewClient. They outlive the
 * session. A new session gets them before the first call that needs them.
 */
#ifndef TLSPLUGIN_CLIENT_H
#define TLSPLUGIN_CLIENT_H

#include "session.h"

/* Makes the call and waits for its answer. Returns 0, or -1 with the process's error set.
 * c->pass is closed in any case. p may be NULL. An error of writing on the handle's data channel
 * that the host has not been told comes first, unless the call is_part. */
int client_run(struct process *p, struct call *c);

/* The session of a handle with a reference, for a call with this name; or NULL and the error set.
 * *ch is the handle's channel, with a reference, or NULL. control says that the call needs the
 * control socket. */
struct session *client_session(struct process *p, const char *op, int64_t handle, bool control,
			       struct channel **ch);

/* tls.SetCaBundle and tls.SetTimeout of the handle 0, for this session and those to come. They
 * return like client_run. */
int64_t client_set_ca(struct process *p, struct call *c);
int64_t client_set_bound(struct process *p, struct call *c);

/* For the end of the library, when no call is going on: ends the process's session. */
void client_end(struct process *p);

#endif
