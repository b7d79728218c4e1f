#define _POSIX_C_SOURCE 200809L
#include "find.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "clientconf.h"
#include "system.h"
#include "text.h"

enum {
	CONNECT_WAIT_MS = 10000, /* when the server's queue is full */
	RACE_WAIT_MS = 1000,     /* for the tlsd that another process has just started */
	RACE_STEP_MS = 10,
};

/* Where a tlsd for the whole machine listens: by default, and with systemd's RuntimeDirectory=. */
static const char *const system_sockets[] = { "/run/tlsd.sock", "/run/tlsd/tlsd.sock" };

/* The environment is not trusted in a program that runs with more rights than its user has. */
static const char *setting(const char *name)
{
	const char *value = sys_getenv(name);

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
	else
		joined = text_make("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
	free(cwd);
	return joined;
}

/* --- connecting --- */

/* A socket that is not one of the standard streams, even if these are closed. */
static int new_socket(void)
{
	int fd = sys_socket(), up, error;

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

/* Adds what was tried. */
__attribute__((format(printf, 2, 3)))
static void note(char *tried, const char *format, ...)
{
	va_list args;

	if (*tried)
		text_add(tried, TRIED_BYTES, "; ");
	va_start(args, format);
	text_vadd(tried, TRIED_BYTES, format, args);
	va_end(args);
}

/* Returns a socket, or -1 with errno, and adds what happened to tried. errno is
 * EPERM if there is a server that must not be talked to. */
static int try_socket(const char *path, const struct client_conf *conf, char *tried, struct wait *w)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	uid_t server;
	int fd, error;

	if (strlen(path) >= sizeof to.sun_path) {
		note(tried, "%s: the path of a socket can have at most %zu bytes", path, sizeof to.sun_path - 1);
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(to.sun_path, path, strlen(path) + 1);
	fd = new_socket();
	if (fd >= 0 && connect_in_time(fd, &to, w) == 0 && sys_peer(fd, &server) == 0) {
		if (server == 0 || server == geteuid() || client_conf_trusts(conf, server))
			return fd;
		note(tried, "%s: refused, because the user with id %u runs it, who is neither root nor %u, nor one of trusted-users in %s", path,
		     (unsigned)server, (unsigned)geteuid(), CLIENT_CONF);
		close(fd);
		errno = EPERM;
		return -1;
	}
	error = errno;
	note(tried, "%s: %s", path, errno_text(error));
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
		end = dir + strcspn(dir, ":");
		if (*dir != '/') /* a tlsd is not taken from wherever the script happens to be */
			continue;
		candidate = text_make("%.*s/tlsd", (int)(end - dir), dir);
		if (!candidate)
			return NULL;
		if (stat(candidate, &st) == 0 && S_ISREG(st.st_mode) && access(candidate, X_OK) == 0)
			return candidate;
		free(candidate);
	}
	return NULL;
}

/* Makes sure that nobody else can put anything into a directory that another user could have
 * made. It need not be there. */
static bool is_private(const char *dir, char *tried)
{
	struct stat st;
	const char *wrong = NULL;

	if (lstat(dir, &st) < 0)
		wrong = errno == ENOENT ? NULL : errno_text(errno);
	else if (!S_ISDIR(st.st_mode))
		wrong = "is no directory";
	else if (st.st_uid != geteuid())
		wrong = "belongs to another user";
	else if (st.st_mode & 077)
		wrong = "is open to other users; its mode must be 0700";
	if (wrong)
		note(tried, "%s: %s", dir, wrong);
	return !wrong;
}

static bool make_private(const char *dir, char *tried)
{
	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		note(tried, "%s: %s", dir, errno_text(errno));
		return false;
	}
	return is_private(dir, tried);
}

/* Names what another user has left where a tlsd of ours would be. */
static void note_obstacles(const char *path, char *tried)
{
	static const char *const suffixes[] = { "", ".lock" };
	char *file;
	struct stat st;

	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		file = text_make("%s%s", path, suffixes[i]);
		if (!file)
			return;
		if (lstat(file, &st) == 0 && st.st_uid != geteuid())
			note(tried, "%s belongs to user %u and is in the way; remove it", file, (unsigned)st.st_uid);
		free(file);
	}
}

/* Starts a private tlsd on a socket where nobody answered, and connects to it.
 * dir is the directory to be made for the socket, if any. */
static int start(const char *path, const char *dir, const struct client_conf *conf, char *tried, struct wait *w)
{
	char ignored[TRIED_BYTES] = "", why[TRIED_BYTES] = "";
	char *exe = find_exe(), *where = absolute_path(path);
	int64_t deadline;
	enum started started;
	int fd = -1;

	if (!exe)
		note(tried, "there is none to start on PATH, and TLSD_EXE does not name one");
	else if (!where)
		note(tried, "the working directory: %s", errno_text(errno));
	if (!exe || !where || (*dir && !make_private(dir, tried))) {
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
		fd = try_socket(path, conf, ignored, w);
		if (fd >= 0 || (errno != ENOENT && errno != ECONNREFUSED) || now_ms() >= deadline)
			break;
		w->deadline = now_ms() + RACE_STEP_MS;
		wait_for(-1, 0, w);
	}
	if (fd < 0) {
		note(tried, "starting %s: %s", exe, started == LISTENS ? ignored : why);
		note_obstacles(where, tried);
	}
	free(exe);
	free(where);
	return fd;
}

/* --- where to look --- */

/* Where a tlsd may be. A private one is started at candidates[mine], if at all. */
struct places {
	const char *candidates[4];
	int n, mine;
	char own[PATH_MAX];          /* where our own private one would be */
	char dir[SOCKET_PATH_BYTES]; /* the directory for it that must be made, or "" */
};

static void add_place(struct places *p, const char *path)
{
	p->candidates[p->n++] = path;
}

static void add_mine(struct places *p, const char *path)
{
	p->mine = p->n;
	add_place(p, path);
}

/* $XDG_RUNTIME_DIR, if it is ours. After sudo -E it is another user's: what root left there
 * would be in that user's way. */
static const char *runtime_dir(char *tried)
{
	const char *dir = setting("XDG_RUNTIME_DIR");
	struct stat st;

	if (!dir || *dir != '/') /* must be absolute, XDG Base Directory Specification */
		return NULL;
	if (stat(dir, &st) == 0 && (st.st_uid != geteuid() || (st.st_mode & 022))) {
		note(tried, "XDG_RUNTIME_DIR=%s is not used, because it %s", dir,
		     st.st_uid != geteuid() ? "belongs to another user" : "is open to other users");
		return NULL;
	}
	return dir;
}

static void find_places(struct places *p, const struct client_conf *conf, char *tried)
{
	const char *named = setting("TLSD_SOCKET"), *runtime;

	p->n = 0;
	p->own[0] = p->dir[0] = '\0';
	if (named) {
		add_mine(p, named);
		return;
	}
	runtime = runtime_dir(tried);
	if (runtime) {
		text_add(p->own, sizeof p->own, "%s/tlsd.sock", runtime);
	} else {
		text_add(p->dir, sizeof p->dir, "/tmp/tlsd-%u", (unsigned)geteuid());
		text_add(p->own, sizeof p->own, "%s/tlsd.sock", p->dir);
	}
	if (*conf->socket) {
		add_place(p, conf->socket);
		p->mine = -1;
		if (conf->autostart == ALLOWED)
			add_mine(p, p->own);
		return;
	}
	if (runtime)
		add_mine(p, p->own);
	for (size_t i = 0; i < sizeof system_sockets / sizeof *system_sockets; i++)
		add_place(p, system_sockets[i]);
	if (!runtime)
		add_mine(p, p->own);
}

/* The system's socket that says that there is a system's tlsd; NULL if none does. */
static const char *sign_of_system(void)
{
	const char *named = setting("TLSD_SOCKET");
	struct stat st;

	for (size_t i = 0; i < sizeof system_sockets / sizeof *system_sockets; i++)
		if (named ? strcmp(named, system_sockets[i]) == 0 : lstat(system_sockets[i], &st) == 0)
			return system_sockets[i];
	return NULL;
}

/* Whether this process has the rights of one user. Another one's would go to the tlsd that it
 * starts, and so to all programs of the effective user. */
static bool is_one_user(char *tried)
{
	if (getuid() != geteuid())
		note(tried, "none was started, because the real user of this program is %u and the effective one %u", (unsigned)getuid(), (unsigned)geteuid());
	else if (getgid() != getegid())
		note(tried, "none was started, because the real group of this program is %u and the effective one %u", (unsigned)getgid(),
		     (unsigned)getegid());
	else
		return true;
	return false;
}

/* Whether a private tlsd may be started. Where there is a system's tlsd, one beside it would
 * lead around its policy. */
static bool may_start(const struct client_conf *conf, char *tried)
{
	const char *autostart = setting("TLSD_AUTOSTART"), *sign;

	if (!is_one_user(tried))
		return false;
	if (autostart && strcmp(autostart, "0") == 0)
		note(tried, "none was started, because TLSD_AUTOSTART is 0");
	else if (conf->autostart == FORBIDDEN)
		note(tried, "none was started, because %s has autostart = no; the system's tlsd is down", CLIENT_CONF);
	else if (conf->autostart == ALLOWED)
		return true;
	else if (*conf->socket)
		note(tried, "none was started, because %s names the system's socket %s; the system's tlsd is down", CLIENT_CONF, conf->socket);
	else if ((sign = sign_of_system()))
		note(tried, "none was started beside the system's tlsd, which is down or not for this user: its socket is %s", sign);
	else
		return true;
	return false;
}

int find_tlsd(char path[SOCKET_PATH_BYTES], char tried[TRIED_BYTES], struct wait *w)
{
	struct client_conf conf;
	struct places places;
	bool startable = true;
	int fd;

	if (!client_conf_read(&conf, tried, TRIED_BYTES))
		return -1;
	find_places(&places, &conf, tried);
	for (int i = 0; i < places.n; i++) {
		const char *at = places.candidates[i];
		if (at == places.own && *places.dir && !is_private(places.dir, tried)) {
			startable = false; /* whoever made it might listen in it */
			continue;
		}
		fd = try_socket(at, &conf, tried, w);
		if (fd >= 0) {
			text_add(path, SOCKET_PATH_BYTES, "%s", at);
			return fd;
		}
		if (i == places.mine)
			startable = errno == ENOENT || errno == ECONNREFUSED;
	}
	if (!startable || wait_ended(w) || !may_start(&conf, tried))
		return -1;
	fd = start(places.candidates[places.mine], places.dir, &conf, tried, w);
	if (fd >= 0)
		text_add(path, SOCKET_PATH_BYTES, "%s", places.candidates[places.mine]);
	return fd;
}
