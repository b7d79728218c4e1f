/*
 * find.h - finds a tlsd, or starts one.
 *
 *   - Our user's own socket is $XDG_RUNTIME_DIR/tlsd.sock. If $XDG_RUNTIME_DIR names no directory
 *     of our user, the own socket is /tmp/tlsd-UID/tlsd.sock.
 *   - If $TLSD_SOCKET is set, the library tries only this socket. Else, if client.conf names a
 *     socket, it tries that socket, and then, if autostart = yes, the own socket. Else it tries the
 *     own socket, /run/tlsd.sock and /run/tlsd/tlsd.sock. An own socket in /tmp comes last.
 *   - If no tlsd answers, the library starts a private one. It starts none if the system has a tlsd
 *     for all users, because a private tlsd would bypass the policy of that tlsd. The library
 *     assumes a tlsd for all users in three cases: client.conf names a socket; $TLSD_SOCKET is one
 *     of the two paths in /run; $TLSD_SOCKET is not set, and a file exists at one of the two paths.
 *     client.conf can also forbid or allow a private tlsd. TLSD_AUTOSTART=0 forbids it, too. A
 *     set-id program starts none.
 *   - The library talks to a server only if root, our own user, or one of client.conf's
 *     trusted-users has made the server's socket.
 *   - A directory that another user could have made is checked before the library connects to a
 *     socket in it.
 *   - In a program that runs with more rights than its user has, the library ignores the
 *     environment.
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
	struct wait *wait; /* the search sets wait->deadline; wait->look() can end the search */
	struct client_conf conf;
	char path[SOCKET_PATH_BYTES]; /* of the socket that was found */
	char tried[TRIED_BYTES];      /* what was tried, for the error text */
};

/* Returns a connected socket, or NULL. A send or a receive on the socket waits for at most TICK_MS
 * (wait.h). */
struct owned *find_tlsd(struct search *f);

/* Adds a text to f->tried. (places.c) */
__attribute__((format(printf, 2, 3)))
void search_note(struct search *f, const char *format, ...);

/* A variable of the environment; NULL if it is empty or ignored. (places.c) */
const char *search_setting(const char *name);

/* The sockets where a tlsd may listen. candidates[private] is the socket for a private tlsd. The
 * member private is -1 if client.conf names a socket and does not allow a private tlsd. */
struct places {
	const char *candidates[4];
	int n, private;
	char own[PATH_MAX];          /* our user's default socket; "" if $TLSD_SOCKET is set */
	char dir[SOCKET_PATH_BYTES]; /* /tmp/tlsd-UID, if own is in this directory; else "" */
};

/* Fills in p from the environment and f->conf. (places.c) */
void places_find(struct places *p, struct search *f);

/* Checks a directory that another user could have made. Returns true if the directory does not
 * exist, or if it belongs to our user and is closed to all others. Otherwise adds the reason to
 * f->tried, and returns false. (places.c) */
bool place_is_private(struct search *f, const char *dir);

/* Says whether a private tlsd may be started. (places.c) */
bool may_start(struct search *f);

enum started { LISTENS, HAS_ENDED /* also: does not listen in time */, CANNOT_START };

/* Starts exe as a daemon that listens on the socket, and waits until it listens. If it does not
 * listen, the reason is added to the string in why. The daemon is no child of this process, and
 * sends it no SIGCHLD. No zombie is left, unless this process inherits orphans (start.c). If the
 * wait ends early, the daemon lives on, for the next caller. (start.c) */
enum started start_tlsd(const char *exe, const char *socket, struct wait *w, char why[TRIED_BYTES]);

/* Says whether our hard limits are enough for a tlsd. If not, the text in why names the limit. The
 * parameter log says whether tlsd will write a log file. Only then the limit of file sizes matters.
 * (limits.c) */
bool limits_suffice(bool log, char why[TRIED_BYTES]);

/* Call it in the new process that will execute tlsd, not in the host. Raises the soft limits to the
 * hard limits, except for the limit of stacks, which it raises to at most 8 MiB. It forbids core
 * dumps, because they could have keys in them. (limits.c) */
void raise_limits(void);

#endif
