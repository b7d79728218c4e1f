/*
 * data.h - the bytes of connections whose handshake is done. tls_Read and tls_Write are one system
 * call on the data channel as a rule.
 *
 * Both set the process's error and return -1 if they fail.
 */
#ifndef TLSPLUGIN_DATA_H
#define TLSPLUGIN_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "process.h"

enum { DATA_MAX_BYTES = 16777216 }; /* of a Read and of a Write */

int64_t data_read(struct process *p, int64_t handle, void *buf, size_t max_bytes);
int64_t data_write(struct process *p, int64_t handle, const void *data, size_t len);

#endif
