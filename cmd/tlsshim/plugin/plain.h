/*
 * plain.h - plain text before the handshake, for protocols that change to TLS later. It goes over
 * the control socket, as base64.
 *
 * Both functions return the number of bytes. On failure they set the last error and return -1.
 */
#ifndef TLSPLUGIN_PLAIN_H
#define TLSPLUGIN_PLAIN_H

#include "call.h"

int64_t plain_read(struct process *p, struct call *c);  /* up to c->room bytes into c->buf */
int64_t plain_write(struct process *p, struct call *c); /* c->blob */

#endif
