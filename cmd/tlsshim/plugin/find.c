#define _POSIX_C_SOURCE 200809L
#include "find.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "system.h"
#include "text.h"

enum {
	CONNECT_WAIT_MS = 10000, /* the longest wait while the server's queue is full */
	RACE_WAIT_MS = 1000,     /* the longest wait for a tlsd that another process has started */
	RACE_STEP_MS = 10,
};

/* --- connecting --- */

/* Sets the timeout of each send and each receive on the socket. */
static int set_timeouts(int fd, int64_t ms)
{
	struct timeval t = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) < 0)
		return -1;
	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

/* Connects the socket. Returns 0, or -1 with errno. While the server's queue is full, connect(2)
 * waits for TICK_MS (SO_SNDTIMEO), and is called again. */
static int connect_in_time(int fd, const struct sockaddr_un *to, struct wait *w)
{
	int64_t deadline = now_ms() + CONNECT_WAIT_MS;

	if (fd < 0 || set_timeouts(fd, TICK_MS) < 0)
		return -1;
	while (!wait_ended(w)) {
		if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0)
			return 0;
		if (errno == EAGAIN && now_ms() >= deadline)
			errno = ETIMEDOUT;
		if (errno != EINTR && errno != EAGAIN)
			return -1;
	}
	errno = ECANCELED;
	return -1;
}

/* Returns a connected socket. If it fails, it returns NULL with errno, and adds the reason to
 * f->tried. errno is EPERM if the library must not talk to the server. */
static struct owned *try_socket(struct search *f, const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct owned *sock = NULL;
	uid_t server;
	int error;

	if (strlen(path) >= sizeof to.sun_path) {
		search_note(f, "%s: the path of a socket can have at most %zu bytes", path,
			    sizeof to.sun_path - 1);
		errno = ENAMETOOLONG;
		return NULL;
	}
	memcpy(to.sun_path, path, strlen(path) + 1);
	sock = owned_socket();
	if (!sock || connect_in_time(owned_fd(sock), &to, f->wait) < 0 ||
	    sys_peer(owned_fd(sock), &server) < 0) {
		error = errno;
		search_note(f, "%s: %s", path, errno_text(error));
	} else if (server == 0 || server == geteuid() || client_conf_trusts(&f->conf, server)) {
		memcpy(f->path, path, strlen(path) + 1);
		return sock;
	} else {
		error = EPERM;
		search_note(f, "%s: refused, because user %u has made the socket; user %u is not "
			    "root, not the user of this process (user %u), and not in "
			    "trusted-users of %s",
			    path, (unsigned)server, (unsigned)server, (unsigned)geteuid(),
			    CLIENT_CONF);
	}
	owned_close(sock);
	errno = error;
	return NULL;
}

/* --- starting a tlsd --- */

/* Returns the path of the program tlsd that start() runs; NULL if there is none. The caller frees
 * the path. */
static char *find_exe(void)
{
	const char *exe = search_setting("TLSD_EXE"), *dir = search_setting("PATH");
	struct stat st;

	if (exe)
		return absolute_path(exe);
	for (const char *end; dir; dir = *end ? end + 1 : NULL) {
		char *candidate;
		end = dir + strcspn(dir, ":");
		if (*dir != '/') /* a relative path would depend on the working directory */
			continue;
		candidate = text_make("%.*s/tlsd", (int)(end - dir), dir);
		if (!candidate)
			return NULL;
		if (stat(candidate, &st) == 0 && S_ISREG(st.st_mode) &&
		    access(candidate, X_OK) == 0)
			return candidate;
		free(candidate);
	}
	return NULL;
}

static bool make_private(const char *dir, struct search *f)
{
	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		search_note(f, "%s: %s", dir, errno_text(errno));
		return false;
	}
	return place_is_private(f, dir);
}

/* Notes the files of another user at the paths that our private tlsd needs. */
static void note_obstacles(const char *path, struct search *f)
{
	static const char *const suffixes[] = { "", ".lock" };
	char *file;
	struct stat st;

	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		file = text_make("%s%s", path, suffixes[i]);
		if (!file)
			return;
		if (lstat(file, &st) == 0 && st.st_uid != geteuid())
			search_note(f, "%s belongs to user %u and is in the way; remove it", file,
				    (unsigned)st.st_uid);
		free(file);
	}
}

/* No tlsd has answered at path. Starts exe as a tlsd that listens there, and then connects to it.
 * The parameter absolute is path as an absolute path. */
static struct owned *start_and_connect(struct search *f, const char *exe, const char *absolute,
				       const char *path)
{
	char why[TRIED_BYTES] = "";
	size_t before = strlen(f->tried);
	enum started started = start_tlsd(exe, absolute, f->wait, why);
	/* Another process may have started a tlsd at the same moment. Then ours has ended, and the
	 * other one may need a moment until it listens. */
	int64_t deadline = now_ms() + (started == HAS_ENDED ? RACE_WAIT_MS : 0);
	struct owned *sock = NULL;

	while (started != CANNOT_START) {
		f->tried[before] = '\0';
		sock = try_socket(f, path);
		if (sock || (errno != ENOENT && errno != ECONNREFUSED) || now_ms() >= deadline)
			break;
		f->wait->deadline = now_ms() + RACE_STEP_MS;
		wait_for(-1, 0, f->wait);
	}
	if (sock)
		return sock;
	if (started == LISTENS)
		text_add(why, sizeof why, "%s", f->tried + before + (before ? strlen("; ") : 0));
	f->tried[before] = '\0';
	search_note(f, "starting %s: %s", exe, why);
	note_obstacles(absolute, f);
	return NULL;
}

/* Starts a private tlsd. dir is the directory to make for the socket, or "". */
static struct owned *start(struct search *f, const char *path, const char *dir)
{
	char *exe = find_exe(), *absolute = absolute_path(path);
	struct owned *sock = NULL;

	if (!exe)
		search_note(f, "PATH has no tlsd to start, and TLSD_EXE does not name one");
	else if (!absolute)
		search_note(f, "the working directory: %s", errno_text(errno));
	else if (!*dir || make_private(dir, f))
		sock = start_and_connect(f, exe, absolute, path);
	free(exe);
	free(absolute);
	return sock;
}

struct owned *find_tlsd(struct search *f)
{
	struct places places;
	bool startable = true;
	struct owned *sock;

	f->path[0] = '\0';
	if (!client_conf_read(&f->conf, f->tried, sizeof f->tried))
		return NULL;
	places_find(&places, f);
	for (int i = 0; i < places.n; i++) {
		const char *at = places.candidates[i];

		if (at == places.own && *places.dir && !place_is_private(f, places.dir)) {
			startable = false; /* a socket in this directory could be another user's */
			continue;
		}
		sock = try_socket(f, at);
		if (sock)
			return sock;
		if (i == places.private)
			startable = errno == ENOENT || errno == ECONNREFUSED;
	}
	if (!startable || wait_ended(f->wait) || !may_start(f))
		return NULL;
	return start(f, places.candidates[places.private], places.dir);
}
