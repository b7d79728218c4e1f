/*
 * client.h - calls to tlsd over the process's session.
 *
 * The first call that needs a session opens it. The session is lost if, for example, tlsd or the
 * session's worker goes away. Then every waiting call fails with kind lost, and so does every later
 * call on one of the session's handles. The next call without a handle opens a new session. No call
 * is ever sent twice.
 *
 * The process's settings are the CA bundle and the timeout of tls_NewClient. They outlive the
 * session. A new session gets them before the first call that needs them.
 */
#ifndef TLSPLUGIN_CLIENT_H
#define TLSPLUGIN_CLIENT_H

#include "session.h"

/* Makes the call and waits for its answer. Returns 0 if the call succeeds. Otherwise returns -1 and
 * sets the last error (error.h), unless the method is QUIET (call.h). The handle's data channel
 * may have an error of writing that no call has returned yet. Then the call fails with this error,
 * unless the call is a part of a use (c->is_part). Closes c->pass in any case. p may be NULL. */
int client_run(struct process *p, struct call *c);

/* Returns the session of a handle, and *ch becomes the handle's channel. The caller gets a
 * reference to each of them. If the handle has no channel (channel.h), *ch becomes NULL. Returns
 * NULL with the error set if the handle belongs to no session. op is the name of the call. The
 * parameter control says whether the call needs the control socket. */
struct session *client_session(struct process *p, const char *op, int64_t handle, bool control,
			       struct channel **ch);

/* client_set_ca makes the call tls.SetCaBundle, and client_set_timeout makes tls.SetTimeout with
 * the handle 0. If the call succeeds, later sessions get the setting, too. Both functions return
 * what client_run returns. */
int64_t client_set_ca(struct process *p, struct call *c);
int64_t client_set_timeout(struct process *p, struct call *c);

/* Call it when the library is unloaded, and no call is going on. Ends the process's session. */
void client_end(struct process *p);

#endif
