/*
 * data.h - the bytes of connections: each connection whose handshake is done has a data channel
 * (channel.h), on which tls_Read and tls_Write are one system call each as a rule.
 *
 * What went wrong is not on the channel: its end says that something has happened, and
 * tls.Status on control says what. That is asked once for a direction and then remembered. An
 * error of writing that the host has not been told is raised by the next call on the handle,
 * whichever it is.
 *
 * All functions are for one visit, set the process's error and return -1 if they fail.
 */
#ifndef TLSPLUGIN_DATA_H
#define TLSPLUGIN_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "process.h"

enum { DATA_MAX_BYTES = 16777216 }; /* of a Read and of a Write */

int64_t data_handshake(struct process *p, int64_t handle);
int64_t data_accept(struct process *p, int64_t ctx, const char *host, int32_t port);
int64_t data_read(struct process *p, int64_t handle, void *buf, size_t max_bytes);
int64_t data_write(struct process *p, int64_t handle, const void *data, size_t len);
int64_t data_shutdown(struct process *p, int64_t handle);
int64_t data_close(struct process *p, int64_t handle);
int64_t data_close_context(struct process *p, int64_t ctx);
int64_t data_set_timeout(struct process *p, int64_t handle, int32_t milliseconds);
int64_t data_descriptor(struct process *p, int64_t handle);

/* Raises what has gone wrong in writing and has not been told, for a call on the handle that
 * has nothing else to do with its data. Returns 0 if there is nothing. */
int data_raise(struct process *p, int64_t handle);

#endif
