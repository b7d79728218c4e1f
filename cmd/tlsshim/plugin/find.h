/*
 * find.h - the way to a tlsd.
 *
 *   - The places are $TLSD_SOCKET alone; else the socket of client.conf alone; else
 *     $XDG_RUNTIME_DIR/tlsd.sock, /run/tlsd.sock and /run/tlsd/tlsd.sock. Without a runtime
 *     directory of our own the last place is /tmp/tlsd-UID/tlsd.sock.
 *   - If no tlsd answers there, a private one is started. It is not started beside a system's tlsd,
 *     which may have a policy: if client.conf forbids it or names a socket, or if one of the two
 *     files in /run is there, or is what TLSD_SOCKET names.
 *   - A server is talked to only if root, our own user, or one of client.conf's trusted-users runs
 *     it.
 *   - A directory that another user could have made is looked at before a socket in it is.
 *   - The environment does not count in a program that runs with more rights than its user has.
 */
#ifndef TLSPLUGIN_FIND_H
#define TLSPLUGIN_FIND_H

#include <limits.h>

#include "clientconf.h"
#include "owned.h"
#include "wait.h"

enum {
	SOCKET_PATH_BYTES = 108, /* sun_path, unix(7) */
	TRIED_BYTES = 3000,
};

struct search {
	struct wait *wait; /* ends the search early; its deadline is not the caller's */
	struct client_conf conf;
	char path[SOCKET_PATH_BYTES]; /* of the socket that was found */
	char tried[TRIED_BYTES];      /* what was tried, for people */
};

/* Returns a connected socket, or NULL. A send or a receive on it waits for a tick at most. */
struct owned *find_tlsd(struct search *f);

/* Adds what was tried. (places.c) */
__attribute__((format(printf, 2, 3)))
void search_note(struct search *f, const char *format, ...);

/* A variable of the environment that counts; NULL if it is empty. (places.c) */
const char *search_setting(const char *name);

/* Where a tlsd may be. A private one is started at candidates[private], if at all. */
struct places {
	const char *candidates[4];
	int n, private;
	char own[PATH_MAX];          /* where our own private one would be */
	char dir[SOCKET_PATH_BYTES]; /* the directory for it that must be made, or "" */
};

/* (places.c) */
void places_find(struct places *p, struct search *f);

/* Whether nobody else can put anything into a directory that another user could have made. It need
 * not be there. (places.c) */
bool place_is_private(struct search *f, const char *dir);

/* Whether a private tlsd may be started. Where there is a system's tlsd, one beside it would lead
 * around its policy. (places.c) */
bool may_start(struct search *f);

enum started { LISTENS, HAS_ENDED, CANNOT_START };

/* Starts exe as a daemon of its own that listens on the socket, and waits until it does; if it does
 * not, why says why. It is no child of this process: it leaves no zombie and sends no SIGCHLD. If
 * the wait ends early, it lives on, for the next caller. (start.c) */
enum started start_tlsd(const char *exe, const char *socket, struct wait *w, char why[TRIED_BYTES]);

/* Whether the hard limits leave enough for a tlsd; if not, why says which one does not. Only a log
 * makes files. (limits.c) */
bool limits_suffice(bool log, char why[TRIED_BYTES]);

/* Raises the soft limits as far as they go, but for dumps of memory, which could have keys in them.
 * (limits.c) */
void raise_limits(void);

#endif
