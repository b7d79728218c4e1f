/*
 * clientconf.h - /etc/tlsd/client.conf, in which the administrator tells callers about the system's
 * tlsd. It has lines of "key = value". Empty lines and lines that begin with # are ignored.
 *
 *   socket = PATH             the socket of the system's tlsd. If $TLSD_SOCKET is set, the plugin
 *                             tries only $TLSD_SOCKET. Otherwise it tries PATH. With
 *                             autostart = yes it then tries the socket of a private tlsd
 *   autostart = yes | no      whether a private tlsd may be started
 *   trusted-users = USER ...  names or numbers of users whose daemons are trusted like root's
 *
 * It is an error if another user than root can change the file. An unknown line is an error too,
 * because the administrator may want to forbid something with it. rpc/client reads the file by the
 * same rules.
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
	char socket[CONF_SOCKET_BYTES]; /* the setting socket; "" if there is none */
	enum permission autostart;
	uid_t trusted[MOST_TRUSTED];
	size_t trusted_count;
};

/* Reads the file. If the file does not exist, conf has no settings, and the result is true. Returns
 * false, with the reason in why, if the file is bad or cannot be read. */
bool client_conf_read(struct client_conf *conf, char *why, size_t cap);

/* Says whether trusted-users has the user. If so, the plugin may talk to a daemon of this user. */
bool client_conf_trusts(const struct client_conf *conf, uid_t user);

#endif
