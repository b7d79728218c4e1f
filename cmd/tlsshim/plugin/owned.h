/*
 * owned.h - the descriptors that the library keeps from one call to the next.
 *
 * A host may close descriptors that are not its own, and open other files under the same numbers.
 * Programs that become daemons do this. So the library remembers the device and inode of each
 * descriptor. Before each use, and before it closes the descriptor, it compares them with the
 * result of fstat(2). A number that now belongs to another file is never used, and never closed.
 *
 * No owned descriptor is 0, 1 or 2, and each is close-on-exec. After a fork the child closes
 * all of them. Otherwise its copies would keep a socket open that the parent has closed.
 */
#ifndef TLSPLUGIN_OWNED_H
#define TLSPLUGIN_OWNED_H

#include <stdbool.h>

struct owned;

/* These functions make a Unix stream socket, a pair of connected Unix stream sockets, and a pipe.
 * Of the pipe, ends[0] is for reading and ends[1] for writing. If they fail, they return NULL or
 * false, with errno. */
struct owned *owned_socket(void);
bool owned_socketpair(struct owned *ends[2]);
bool owned_pipe(struct owned *ends[2]);

/* Returns the descriptor. Returns -1 if the host has closed the descriptor, even if its number now
 * belongs to another file. Returns -1 also if o is NULL. Safe in a signal handler. */
int owned_fd(const struct owned *o);

/* Closes the descriptor, unless the host has closed it. o may be NULL, and must not be used
 * afterwards. Safe in a signal handler. */
void owned_close(struct owned *o);

/* Frees memory when the library is unloaded. All descriptors must have been closed. */
void owned_end(void);

#endif
