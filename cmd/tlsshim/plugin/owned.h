/*
 * owned.h - the descriptors that the library keeps from one call to the next.
 *
 * A number is never trusted. A host may close descriptors that are not its own, as programs
 * do that become daemons, and open others under the same numbers. So each descriptor is
 * remembered with its device and inode. These are compared before each use, and before the
 * close. A number that has become another file is never used, and never closed.
 *
 * No owned descriptor is 0, 1 or 2, and each is close-on-exec. After a fork the child closes
 * all of them. Otherwise its copies would keep a socket open that the parent has closed.
 */
#ifndef TLSPLUGIN_OWNED_H
#define TLSPLUGIN_OWNED_H

#include <stdbool.h>

struct owned;

/* Make a Unix stream socket, a pair of them, and a pipe (the reading end, the writing end). They
 * return NULL or false, with errno, if they fail. */
struct owned *owned_socket(void);
bool owned_socketpair(struct owned *ends[2]);
bool owned_pipe(struct owned *ends[2]);

/* The descriptor, or -1 if its number has become another file. Safe in a signal handler. */
int owned_fd(const struct owned *o);

/* Closes the descriptor, unless its number has become another file. o may be NULL. Safe in a signal
 * handler. */
void owned_close(struct owned *o);

/* Frees memory at the end of the library. All descriptors must have been closed. */
void owned_end(void);

#endif
