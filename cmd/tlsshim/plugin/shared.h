/*
 * shared.h - the half of wire.c that goes through shared memory. See there.
 */
#ifndef TLSPLUGIN_SHARED_H
#define TLSPLUGIN_SHARED_H

#include "wire.h"

bool shared_read_line(struct wire *wi, struct wait *w, struct span *line, char *why);
bool shared_raw(struct wire *wi, char *to, size_t len, struct wait *w, char *why);
bool shared_put(struct wire *wi, const struct iovec *parts, int n, struct wait *w);
enum sent shared_try_put(struct wire *wi, const char *message, size_t len);

/* Reads what has come over the socket; false if there is nothing. */
bool shared_hear(struct wire *wi);

/* --- of wire.c, for shared.c --- */

#define WIRE_CLOSED "tlsd has closed the session"

/* Waits until there is something to read on the socket. */
bool wire_await_input(int fd, struct wait *w, char *why);

/* Makes room behind what the input has. */
bool wire_make_room(struct input *in, char *why);

/* Whether a send that has waited must not go on. */
bool wire_is_over(struct wire *wi, struct wait *w);

bool wire_send_on_socket(struct wire *wi, struct iovec *parts, int n, bool offer, struct wait *w);

#endif
