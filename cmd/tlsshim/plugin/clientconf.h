/*
 * clientconf.h - /etc/tlsd/client.conf: what the administrator says to all callers of tlsd.
 *
 * Lines of "key = value"; empty lines and lines that begin with # do not count.
 *
 *   socket = PATH             the system's tlsd listens here, and is not looked for elsewhere
 *   autostart = yes | no      whether a private tlsd may be started
 *   trusted-users = USER ...  names or numbers: their daemons are talked to as root's are
 *
 * Only root can change the file, or it is an error. So is a line that is not understood: it may be
 * meant to forbid something. rpc/client reads the same file by the same rules.
 */
#ifndef TLSPLUGIN_CLIENTCONF_H
#define TLSPLUGIN_CLIENTCONF_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define CLIENT_CONF "/etc/tlsd/client.conf"

enum { MOST_TRUSTED = 32, CONF_SOCKET_BYTES = 108 /* sun_path, unix(7) */ };

enum permission { UNSAID, ALLOWED, FORBIDDEN };

struct client_conf {
	char socket[CONF_SOCKET_BYTES]; /* "" if there is none */
	enum permission autostart;
	uid_t trusted[MOST_TRUSTED];
	size_t trusted_count;
};

/* Reads the file; if there is none, nothing is said. False, and why, if it is not good. */
bool client_conf_read(struct client_conf *conf, char *why, size_t cap);

/* Whether a daemon that the user runs is talked to. */
bool client_conf_trusts(const struct client_conf *conf, uid_t user);

#endif
