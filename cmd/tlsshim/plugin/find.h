/*
 * find.h - the way to a tlsd.
 *
 *   - The places are $TLSD_SOCKET alone; else the socket of client.conf alone; else
 *     $XDG_RUNTIME_DIR/tlsd.sock, /run/tlsd.sock and /run/tlsd/tlsd.sock. Without a runtime
 *     directory of our own the last place is /tmp/tlsd-UID/tlsd.sock.
 *   - If none answers there, a private one is started; but not beside a system's tlsd, which may have a
 *     policy: if client.conf forbids it or names a socket, or if one of the two files in /run is there,
 *     or is what TLSD_SOCKET names.
 *   - A server is talked to only if root, our own user, or one of client.conf's trusted-users runs it.
 *   - A directory that another user could have made is looked at before a socket in it is.
 */
#ifndef TLSPLUGIN_FIND_H
#define TLSPLUGIN_FIND_H

#include <stddef.h>

#include "wait.h"

enum {
	SOCKET_PATH_BYTES = 108, /* sun_path, unix(7) */
	TRIED_BYTES = 3000,
};

/* Returns a connected socket with its path, or -1 and what was tried. No send and
 * no receive on it waits for longer than a tick. w, of which the deadline is not
 * the caller's, ends it early. */
int find_tlsd(char path[SOCKET_PATH_BYTES], char tried[TRIED_BYTES], struct wait *w);

enum started { LISTENS, HAS_ENDED, CANNOT_START };

/* Starts exe as a daemon of its own that listens on the socket, and waits until
 * it does; if it does not, why says why. It is no child of this process: it
 * leaves no zombie and sends no SIGCHLD; and if the wait ends early, it lives
 * on, for whoever comes next. (start.c) */
enum started start_tlsd(const char *exe, const char *socket, struct wait *w, char why[TRIED_BYTES]);

/* The path, made absolute from the working directory; to be freed. NULL and
 * errno if that cannot be done. */
char *absolute_path(const char *path);

#endif
