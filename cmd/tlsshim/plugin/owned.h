/*
 * owned.h - the descriptors that the library keeps from one call to the next.
 *
 * A number is never trusted. A host may close descriptors that are not its own, as programs
 * do that become daemons, and open others under the same numbers. So each descriptor is
 * remembered with its device and inode. These are compared before each use, and before the
 * close. A number that has become another file is never used, and never closed.
 *
 * No owned descriptor is 0, 1 or 2, and each is close-on-exec. After a fork the child closes
 * all of them, because a copy would keep alive what the parent ends.
 */
#ifndef TLSPLUGIN_OWNED_H
#define TLSPLUGIN_OWNED_H

#include <stdbool.h>

struct owned;

/* Make what the names say. NULL, or false, and errno if that cannot be done. */
struct owned *owned_socket(void); /* for tlsd's */
bool owned_socketpair(struct owned *ends[2]);
bool owned_pipe(struct owned *ends[2]); /* to be read, to be written */

/* The descriptor, or -1 if its number has become another file. Safe in a signal handler. */
int owned_fd(const struct owned *o);

/* Closes the descriptor, if it is still what it was. o may be NULL. Safe in a signal handler. */
void owned_close(struct owned *o);

/* At the end of the library: frees memory. Nothing is owned any more. */
void owned_end(void);

#endif
