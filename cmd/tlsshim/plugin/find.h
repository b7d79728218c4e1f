/*
 * find.h - the way to a tlsd: $TLSD_SOCKET, else $XDG_RUNTIME_DIR/tlsd.sock,
 * else /run/tlsd.sock; and if none answers there, a private one is started.
 *
 * A server is talked to only if root or our own user runs it. A socket that was
 * named by TLSD_SOCKET is never replaced by another.
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
