/*
 * data.h - the bytes of connections whose handshake is done. Usually tls_Read and tls_Write make
 * one system call on the data channel, and no call to tlsd.
 *
 * data_read and data_write set the last error (error.h) and return -1 if they fail.
 */
#ifndef TLSPLUGIN_DATA_H
#define TLSPLUGIN_DATA_H

#include <stdbool.h>

#include "call.h"

enum { DATA_MAX_BYTES = 16777216 }; /* the most bytes of a Read or a Write */

int64_t data_read(struct process *p, struct call *c);  /* up to c->room bytes into c->buf */
int64_t data_write(struct process *p, struct call *c); /* c->blob */

/* data_has_room checks the buffer of a Read, and data_is_good checks the data of a Write. If the
 * parameter is wrong, they set the error and return false. */
bool data_has_room(struct process *p, const struct call *c, const char *op);
bool data_is_good(struct process *p, const struct call *c, const char *op);

#endif
