/*
 * connection.h - the life of a connection as far as it concerns its data channel: from the
 * handshake, which makes the channel, to the close. For a context its descriptor.
 *
 * All functions set the process's error and return -1 if they fail.
 */
#ifndef TLSPLUGIN_CONNECTION_H
#define TLSPLUGIN_CONNECTION_H

#include <stdint.h>

#include "process.h"

int64_t connection_handshake(struct process *p, int64_t handle);
int64_t connection_accept(struct process *p, int64_t ctx, const char *host, int32_t port);
int64_t connection_set_timeout(struct process *p, int64_t handle, int32_t milliseconds);
int64_t connection_set_option(struct process *p, int64_t handle, const char *name,
			      const char *value);
int64_t connection_descriptor(struct process *p, int64_t handle);

/* Notes that the handle is that of a new context. */
void connection_is_context(struct process *p, int64_t ctx);
int64_t connection_shutdown(struct process *p, int64_t handle);
int64_t connection_close(struct process *p, int64_t handle);
int64_t connection_close_context(struct process *p, int64_t ctx);

#endif
