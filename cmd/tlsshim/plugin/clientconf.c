#define _XOPEN_SOURCE 700 /* POSIX 2008 and its X/Open part: realpath, S_ISVTX */
#include "clientconf.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

enum { MOST_BYTES = 64 << 10 };

static const char *const blanks = " \t\r";

/* /etc/passwd lacks the users of services with DynamicUser=. For each of these users systemd makes
 * a symbolic link. The link's path is DYNAMIC_USERS and the user's name, and its target is the
 * user's number. Only root can make links in this folder. */
#define DYNAMIC_USERS "/run/systemd/dynamic-uid/direct:"

/* Cuts *rest at the first character that is one of the separators. Returns the text before it, and
 * *rest becomes the text after it. If there is no separator, returns the whole text, and *rest
 * becomes NULL. If *rest is NULL already, returns NULL. */
static char *cut(char **rest, const char *separators)
{
	char *first = *rest, *end;

	if (!first)
		return NULL;
	end = first + strcspn(first, separators);
	*rest = *end ? end + 1 : NULL;
	*end = '\0';
	return first;
}

/* --- opening the file --- */

/* Looks at the owner and the mode of a file, or of a folder above the file. Returns true if only
 * root can change the file or folder. Also returns true for root's sticky folders, because other
 * users cannot replace root's files in them. If the result is false, why has the reason. */
static bool only_root_changes(const char *path, const struct stat *st, char *why, size_t cap)
{
	bool sticky = S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX);

	if (st->st_uid != 0)
		text_add(why, cap, "%s belongs to user %u, who could change it; give it to root "
			 "(chown)", path, (unsigned)st->st_uid);
	else if ((st->st_mode & 022) && !sticky)
		text_add(why, cap, "%s has the mode %04o, so that users besides root can change "
			 "it; remove their write permission (chmod go-w)", path,
			 (unsigned)st->st_mode & 07777);
	else
		return true;
	return false;
}

/* Checks the folders on the way to an absolute path. */
static bool folders_are_safe(const char *path, char *why, size_t cap)
{
	char folder[PATH_MAX];
	struct stat st;

	for (const char *end = strchr(path, '/'); end; end = strchr(end + 1, '/')) {
		int len = end == path ? 1 : (int)(end - path);
		snprintf(folder, sizeof folder, "%.*s", len, path);
		if (stat(folder, &st) < 0) {
			text_add(why, cap, "%s: %s", folder, errno_text(errno));
			return false;
		}
		if (!only_root_changes(folder, &st, why, cap))
			return false;
	}
	return true;
}

/* Opens the file. Returns a descriptor; or -1, with the reason in why. If there is no such file,
 * why is empty. */
static int open_safely(const char *path, char *why, size_t cap)
{
	char *real = realpath(path, NULL);
	struct stat st;
	int fd = -1;

	if (!real) {
		if (errno != ENOENT)
			text_add(why, cap, "%s: %s", path, errno_text(errno));
		return -1;
	}
	/* If path is a symbolic link, the link's folders and its target's folders are checked. */
	if (folders_are_safe(path, why, cap) && folders_are_safe(real, why, cap)) {
		fd = open(real, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0)
			text_add(why, cap, "%s: %s", path, errno_text(errno));
		else if (!S_ISREG(st.st_mode))
			text_add(why, cap, "%s is not a regular file", path);
		else
			only_root_changes(path, &st, why, cap);
	}
	free(real);
	if (*why && fd >= 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Reads to the end of the file, but at most cap bytes, and adds a NUL. So buf must have room for
 * cap + 1 bytes. Returns the number of bytes without the NUL, or -1 with errno. */
static ssize_t read_all(int fd, char *buf, size_t cap)
{
	size_t have = 0;
	ssize_t n;

	do {
		n = read(fd, buf + have, cap - have);
		if (n > 0)
			have += (size_t)n;
	} while ((n > 0 && have < cap) || (n < 0 && errno == EINTR));
	buf[have] = '\0';
	return n < 0 ? -1 : (ssize_t)have;
}

/* --- users --- */

static bool number(const char *text, uid_t *user)
{
	unsigned long long n = 0;

	if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 10)
		return false;
	for (; *text; text++)
		n = n * 10 + (unsigned)(*text - '0');
	*user = (uid_t)n;
	return n < UINT32_MAX; /* no user has the number (uid_t)-1 */
}

/* Reads /etc/passwd without getpwnam(3), which may load libraries into the host, and ask the
 * network. */
static bool in_passwd(const char *name, uid_t *user)
{
	FILE *f = fopen("/etc/passwd", "re");
	char *line = NULL, *at, *field;
	size_t room = 0;
	bool found = false;

	while (f && !found && getline(&line, &room, f) > 0) {
		at = line;
		field = cut(&at, ":");
		if (strcmp(field, name) != 0 || !at)
			continue;
		cut(&at, ":"); /* the password */
		field = cut(&at, ":");
		found = field && number(field, user);
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

static bool is_dynamic(const char *name, uid_t *user)
{
	char link[NAME_MAX + sizeof DYNAMIC_USERS], target[16];
	ssize_t n;

	if (strchr(name, '/') || strlen(name) > NAME_MAX - 8)
		return false;
	snprintf(link, sizeof link, DYNAMIC_USERS "%s", name);
	n = readlink(link, target, sizeof target - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return number(target, user);
}

/* --- the lines --- */

static char *trim(char *text)
{
	size_t len;

	text += strspn(text, blanks);
	len = strlen(text);
	while (len > 0 && strchr(blanks, text[len - 1]))
		text[--len] = '\0';
	return text;
}

static const char *set_trusted(struct client_conf *conf, char *value)
{
	char *name;

	while ((name = cut(&value, " \t,"))) {
		uid_t user;
		if (!*name)
			continue;
		if (conf->trusted_count == MOST_TRUSTED)
			return "too many users";
		/* An unknown name is no error. It may be a dynamic user: systemd makes such a user
		 * only when the service starts. */
		if (number(name, &user) || in_passwd(name, &user) || is_dynamic(name, &user))
			conf->trusted[conf->trusted_count++] = user;
	}
	return NULL;
}

/* Stores one setting. Returns what is wrong, or NULL. */
static const char *set(struct client_conf *conf, const char *key, char *value)
{
	if (strcmp(key, "socket") == 0) {
		if (value[0] != '/' || strlen(value) >= sizeof conf->socket)
			return "socket: want an absolute path of at most 107 bytes";
		text_add(conf->socket, sizeof conf->socket, "%s", value);
		return NULL;
	}
	if (strcmp(key, "autostart") == 0) {
		if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
			return "autostart: want yes or no";
		conf->autostart = *value == 'y' ? ALLOWED : FORBIDDEN;
		return NULL;
	}
	if (strcmp(key, "trusted-users") == 0)
		return set_trusted(conf, value);
	return "want \"key = value\" with the key socket, autostart or trusted-users";
}

static bool parse(struct client_conf *conf, char *text, char *why, size_t cap)
{
	unsigned seen = 0;
	char *line;

	for (int number = 1; (line = cut(&text, "\n")); number++) {
		const char *wrong = "want \"key = value\"";
		char *value = line, *key = trim(cut(&value, "="));
		unsigned bit;
		if (*key == '\0' && !value)
			continue;
		if (*key == '#')
			continue;
		bit = 1U << (*key & 31); /* the keys begin with different letters */
		if (value)
			wrong = set(conf, key, trim(value));
		if (!wrong && seen & bit)
			wrong = "the key is there twice";
		if (wrong) {
			text_add(why, cap, "%s: line %d: %s", CLIENT_CONF, number, wrong);
			return false;
		}
		seen |= bit;
	}
	return true;
}

bool client_conf_read(struct client_conf *conf, char *why, size_t cap)
{
	int fd;
	char *text;
	ssize_t n = -1;
	bool good = false;

	memset(conf, 0, sizeof *conf);
	*why = '\0';
	fd = open_safely(CLIENT_CONF, why, cap);
	if (fd < 0)
		return *why == '\0';
	text = malloc(MOST_BYTES + 1);
	if (text)
		n = read_all(fd, text, MOST_BYTES);
	if (n < 0)
		text_add(why, cap, "%s: %s", CLIENT_CONF, errno_text(errno));
	else if (n == MOST_BYTES || memchr(text, '\0', (size_t)n))
		text_add(why, cap, "%s: it is too long, or has a zero byte", CLIENT_CONF);
	else
		good = parse(conf, text, why, cap);
	free(text);
	close(fd);
	return good;
}

bool client_conf_trusts(const struct client_conf *conf, uid_t user)
{
	for (size_t i = 0; i < conf->trusted_count; i++)
		if (conf->trusted[i] == user)
			return true;
	return false;
}
