#define _GNU_SOURCE
#include "find.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "text.h"

enum {
	CONNECT_WAIT_MS = 10000, /* when the server's queue is full */
	RACE_WAIT_MS = 1000,     /* for the tlsd that another process has just started */
	RACE_STEP_MS = 10,
};

/* The environment is not trusted in a program that runs with more rights than its user has. */
static const char *setting(const char *name)
{
	const char *value = secure_getenv(name);

	return value && *value ? value : NULL;
}

char *absolute_path(const char *path)
{
	char *cwd, *joined = NULL;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return NULL;
	if (cwd[0] != '/')
		errno = ENOENT; /* "(unreachable)/...", getcwd(3) */
	else if (asprintf(&joined, "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path) < 0) {
		joined = NULL;
		errno = ENOMEM;
	}
	free(cwd);
	return joined;
}

/* --- connecting --- */

/* A socket that is not one of the standard streams, even if these are closed. */
static int new_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), up, error;

	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	up = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	error = errno;
	close(fd);
	errno = error;
	return up;
}

/* Makes every send and every receive on the socket give up after so long. */
static int set_timeouts(int fd, int64_t ms)
{
	struct timeval t = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) < 0)
		return -1;
	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

/* connect(2) waits while the server's queue is full, but not for longer than SO_SNDTIMEO. */
static int connect_in_time(int fd, const struct sockaddr_un *to, struct wait *w)
{
	int64_t deadline = now_ms() + CONNECT_WAIT_MS;

	if (set_timeouts(fd, TICK_MS) < 0)
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

/* Returns a socket, or -1 with errno, and adds what happened to tried. errno is
 * EPERM if there is a server that must not be talked to. */
static int try_socket(const char *path, char *tried, struct wait *w)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct ucred server;
	socklen_t len = sizeof server;
	int fd, error;

	if (strlen(path) >= sizeof to.sun_path) {
		text_add(tried, TRIED_BYTES, "%s%s: the path of a socket can have at most %zu bytes", *tried ? "; " : "", path,
			 sizeof to.sun_path - 1);
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(to.sun_path, path, strlen(path) + 1);
	fd = new_socket();
	if (fd >= 0 && connect_in_time(fd, &to, w) == 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &len) == 0) {
		if (server.uid == 0 || server.uid == geteuid())
			return fd;
		text_add(tried, TRIED_BYTES, "%s%s: refused, because the user with id %u runs it, who is neither root nor %u",
			 *tried ? "; " : "", path, (unsigned)server.uid, (unsigned)geteuid());
		close(fd);
		errno = EPERM;
		return -1;
	}
	error = errno;
	text_add(tried, TRIED_BYTES, "%s%s: %s", *tried ? "; " : "", path, errno_text(error));
	if (fd >= 0)
		close(fd);
	errno = error;
	return -1;
}

/* --- starting one --- */

/* The tlsd to start, to be freed; NULL if there is none. */
static char *find_exe(void)
{
	const char *exe = setting("TLSD_EXE"), *dir = setting("PATH");
	struct stat st;

	if (exe)
		return absolute_path(exe);
	for (const char *end; dir; dir = *end ? end + 1 : NULL) {
		char *candidate;
		end = strchrnul(dir, ':');
		if (*dir != '/') /* a tlsd is not taken from wherever the script happens to be */
			continue;
		if (asprintf(&candidate, "%.*s/tlsd", (int)(end - dir), dir) < 0)
			return NULL;
		if (stat(candidate, &st) == 0 && S_ISREG(st.st_mode) && access(candidate, X_OK) == 0)
			return candidate;
		free(candidate);
	}
	return NULL;
}

/* Makes sure that nobody else can put anything into the directory. */
static bool own_directory(const char *dir, char *tried)
{
	struct stat st;
	const char *wrong = NULL;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		wrong = errno_text(errno);
	else if (lstat(dir, &st) < 0)
		wrong = errno_text(errno);
	else if (!S_ISDIR(st.st_mode))
		wrong = "is no directory";
	else if (st.st_uid != geteuid())
		wrong = "belongs to another user";
	else if (st.st_mode & 077)
		wrong = "is open to other users; its mode must be 0700";
	if (wrong)
		text_add(tried, TRIED_BYTES, "; %s: %s", dir, wrong);
	return !wrong;
}

/* Starts a private tlsd on a socket where nobody answered, and connects to it.
 * dir is the directory to be made for the socket, if any. */
static int start(const char *path, const char *dir, char *tried, struct wait *w)
{
	const char *autostart = setting("TLSD_AUTOSTART");
	char ignored[TRIED_BYTES] = "", why[TRIED_BYTES] = "";
	char *exe, *where;
	int64_t deadline;
	enum started started;
	int fd = -1;

	if (autostart && strcmp(autostart, "0") == 0) {
		text_add(tried, TRIED_BYTES, "; none was started, because TLSD_AUTOSTART is 0");
		return -1;
	}
	exe = find_exe();
	where = absolute_path(path);
	if (!exe)
		text_add(tried, TRIED_BYTES, "; there is none to start on PATH, and TLSD_EXE does not name one");
	else if (!where)
		text_add(tried, TRIED_BYTES, "; the working directory: %s", errno_text(errno));
	if (!exe || !where || (*dir && !own_directory(dir, tried))) {
		free(exe);
		free(where);
		return -1;
	}
	started = start_tlsd(exe, where, w, why);
	/* If another process has started one in the same moment, ours has gone
	 * away in favour of it, and that one may need a moment until it listens. */
	deadline = now_ms() + (started == HAS_ENDED ? RACE_WAIT_MS : 0);
	while (started != CANNOT_START) {
		ignored[0] = '\0';
		fd = try_socket(path, ignored, w);
		if (fd >= 0 || (errno != ENOENT && errno != ECONNREFUSED) || now_ms() >= deadline)
			break;
		w->deadline = now_ms() + RACE_STEP_MS;
		wait_for(-1, 0, w);
	}
	if (fd < 0)
		text_add(tried, TRIED_BYTES, "; starting %s: %s", exe, started == LISTENS ? ignored : why);
	free(exe);
	free(where);
	return fd;
}

int find_tlsd(char path[SOCKET_PATH_BYTES], char tried[TRIED_BYTES], struct wait *w)
{
	const char *named = setting("TLSD_SOCKET"), *runtime = setting("XDG_RUNTIME_DIR");
	char dir[SOCKET_PATH_BYTES] = "", own[PATH_MAX] = "";
	const char *candidates[2];
	bool may_start = true;
	int n = 0, fd, mine;

	/* candidates[mine] is where a private tlsd would be. */
	if (runtime && *runtime != '/')
		runtime = NULL; /* must be absolute, XDG Base Directory Specification */
	if (named) {
		candidates[n++] = named;
		mine = 0;
	} else if (runtime) {
		text_add(own, sizeof own, "%s/tlsd.sock", runtime);
		candidates[n++] = own;
		candidates[n++] = "/run/tlsd.sock";
		mine = 0;
	} else {
		text_add(dir, sizeof dir, "/tmp/tlsd-%u", (unsigned)geteuid());
		text_add(own, sizeof own, "%s/tlsd.sock", dir);
		candidates[n++] = "/run/tlsd.sock";
		candidates[n++] = own;
		mine = 1;
	}

	for (int i = 0; i < n; i++) {
		fd = try_socket(candidates[i], tried, w);
		if (fd >= 0) {
			text_add(path, SOCKET_PATH_BYTES, "%s", candidates[i]);
			return fd;
		}
		if (i == mine)
			may_start = errno == ENOENT || errno == ECONNREFUSED;
	}
	fd = may_start && !wait_ended(w) ? start(candidates[mine], dir, tried, w) : -1;
	if (fd >= 0)
		text_add(path, SOCKET_PATH_BYTES, "%s", candidates[mine]);
	return fd;
}
