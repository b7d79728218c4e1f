/*
 * connection.h - the calls that make, change and end the data channel of a connection, or the
 * descriptor of a server context (tls.Signal).
 *
 * The caller fills in the handle and the other parameters of the call. A function that fails sets
 * the error in p. The functions that return int64_t return -1 then.
 */
#ifndef TLSPLUGIN_CONNECTION_H
#define TLSPLUGIN_CONNECTION_H

#include "call.h"

/* Makes a pair of sockets. The call will send ends[1], which becomes c->pass; the caller owns
 * ends[0]. If no pair can be made, the function returns false with the error set. The error's text
 * has the parameter purpose, which says what the pair is for. */
bool connection_make_pair(struct process *p, struct call *c, struct owned *ends[2],
			  const char *purpose);

int64_t connection_handshake(struct process *p, struct call *c);
int64_t connection_accept(struct process *p, struct call *c);
int64_t connection_set_timeout(struct process *p, struct call *c);
int64_t connection_set_option(struct process *p, struct call *c);
int64_t connection_descriptor(struct process *p, struct call *c);
int64_t connection_shutdown(struct process *p, struct call *c);
int64_t connection_close(struct process *p, struct call *c);
int64_t connection_new_context(struct process *p, struct call *c);
int64_t connection_close_context(struct process *p, struct call *c);

#endif
