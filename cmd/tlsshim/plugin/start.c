/*
 * start.c - starts a private tlsd, which is no child of the host.
 *
 *   - tlsd is a grandchild of the host. The intermediate process, its parent, ends at once, so that
 *     init inherits tlsd. On Linux both processes are made with clone(2) without an exit signal. So
 *     the host gets no SIGCHLD, its own waitpid(-1) never meets them, and its SIGCHLD disposition
 *     does not matter.
 *   - The host itself may inherit orphans, because it is process 1 or a subreaper. Then the
 *     intermediate process stays until tlsd has ended, and reaps tlsd. The next start of a tlsd
 *     reaps the intermediate process.
 *   - Other programs use this tlsd, too. So tlsd inherits only the host's user, cgroup, namespaces
 *     and hard limits, and a few variables of the environment. It inherits no descriptor, signal
 *     mask, directory, umask, terminal or soft limit.
 *   - Between clone and exec the code calls only async-signal-safe functions.
 */
#define _POSIX_C_SOURCE 200809L
#include "find.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system.h"
#include "text.h"

enum {
	READY_WAIT_MS = 10000,
	READY_FD = 3, /* in tlsd: the pipe into which it writes a line feed when it listens */
	HIGH_FD = 10, /* the lowest descriptor in struct plan; become() overwrites 0 to READY_FD */
	NOT_STARTED = 'x', /* instead of the line feed, if the start fails; the errno comes next */
	MOST_REAPERS = 8,
};

/* The variables of the host's environment that tlsd gets: facts about the user. */
static const char *const few[] = { "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TZ", "USER" };
enum { FEW = sizeof few / sizeof *few };

/* Everything that become() needs. It is made before the fork. */
struct plan {
	const char *exe;
	char *argv[10];
	char *env[FEW + 1];
	int null, log, ready; /* descriptors */
	bool reap;            /* the intermediate process stays, and reaps tlsd */
};

static _Noreturn void give_up(int ready, int error)
{
	char failed[2] = { NOT_STARTED, (char)error };

	while (write(ready, failed, sizeof failed) < 0 && errno == EINTR)
		continue;
	_exit(127);
}

/* In the new process: becomes tlsd. The signals are still blocked. */
static _Noreturn void become(const struct plan *plan)
{
	struct sigaction standard;
	sigset_t none;

	memset(&standard, 0, sizeof standard);
	standard.sa_handler = SIG_DFL;
	for (int sig = 1; sig <= sys_last_signal(); sig++)
		sigaction(sig, &standard, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);

	setsid();
	dup2(plan->null, STDIN_FILENO);
	dup2(plan->null, STDOUT_FILENO);
	dup2(plan->log, STDERR_FILENO);
	dup2(plan->ready, READY_FD);
	sys_close_from(READY_FD + 1);
	raise_limits();
	umask(077);
	if (chdir("/") == 0)
		execve(plan->exe, plan->argv, plan->env);
	give_up(READY_FD, errno);
}

/* Runs in the intermediate process, with all signals blocked. It stays until tlsd has ended. */
static _Noreturn void reap(pid_t tlsd)
{
	setsid();
	sys_close_from(0);
	(void)!chdir("/");
	sys_name("waits for tlsd");
	while (sys_wait(tlsd, NULL) < 0 && errno == EINTR)
		continue;
	_exit(0);
}

/* Intermediate processes that stay. Only the thread that opens a session uses the list. A fork of
 * the host copies the list, but the processes are children of the host alone. In the forked process
 * sys_has_ended returns true for processes that are no children, so forget_reapers removes them
 * from the copy. */
static pid_t reapers[MOST_REAPERS];

static void forget_reapers(void)
{
	for (size_t i = 0; i < MOST_REAPERS; i++)
		if (reapers[i] > 0 && sys_has_ended(reapers[i]))
			reapers[i] = 0;
}

static void remember_reaper(pid_t reaper)
{
	for (size_t i = 0; i < MOST_REAPERS; i++)
		if (reapers[i] == 0) {
			reapers[i] = reaper;
			return;
		}
}

/* Makes the intermediate process, which makes the process of tlsd. Returns 0, or -1 and errno. */
static int spawn(const struct plan *plan)
{
	sigset_t all, before;
	pid_t between, tlsd;
	int error;

	sigfillset(&all);
	/* None of the host's handlers may run in the new processes. */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	between = sys_fork();
	if (between == 0) {
		tlsd = sys_fork();
		if (tlsd == 0)
			become(plan);
		if (plan->reap && tlsd > 0)
			reap(tlsd);
		if (plan->reap)
			give_up(plan->ready, errno);
		_exit(tlsd < 0 ? errno : 0);
	}
	error = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (between > 0 && plan->reap) {
		remember_reaper(between);
		return 0;
	}
	if (between > 0) {
		int status = 0;
		while (sys_wait(between, &status) < 0 && errno == EINTR)
			continue;
		error = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
		if (error == 0)
			return 0;
	}
	errno = error;
	return -1;
}

/* Waits until tlsd listens. */
static enum started await_ready(int fd, struct wait *w, char *why)
{
	unsigned char said[2];
	ssize_t n = -1;

	w->deadline = now_ms() + READY_WAIT_MS;
	switch (wait_for(fd, POLLIN, w)) {
	case READY:
		do
			n = read(fd, said, sizeof said);
		while (n < 0 && errno == EINTR);
		break;
	case LATE:
		text_add(why, TRIED_BYTES, "does not listen after %d s", READY_WAIT_MS / 1000);
		return HAS_ENDED;
	case ENDED:
		text_add(why, TRIED_BYTES, "the wait for it was cancelled");
		return CANNOT_START;
	case FAILED:
		break;
	}
	if (n > 0 && said[0] == '\n')
		return LISTENS;
	if (n == 2 && said[0] == NOT_STARTED) {
		text_add(why, TRIED_BYTES, "%s", errno_text(said[1]));
		return CANNOT_START;
	}
	text_add(why, TRIED_BYTES,
		 "ended before it listened (TLSD_LOG can name a file for its messages)");
	return HAS_ENDED;
}

/* Makes the environment of tlsd from the variables in few[]. Variables such as SSL_CERT_FILE and
 * LD_LIBRARY_PATH are left out, because other programs, with other values, will use the same
 * tlsd. */
static void few_variables(char *env[static FEW + 1])
{
	size_t kept = 0;

	for (size_t i = 0; i < FEW; i++) {
		const char *value = sys_getenv(few[i]);
		if (value && (env[kept] = text_make("%s=%s", few[i], value)))
			kept++;
	}
	env[kept] = NULL;
}

/* Opens the file of tlsd's log. It never waits. Returns -1 with errno if it fails; errno is 0 if
 * the path is no regular file. */
static int open_log(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		errno = 0;
		return -1;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW |
			O_NOCTTY, 0600);
	if (fd < 0 || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)))
		return fd;
	close(fd); /* the path has changed since lstat */
	errno = 0;
	return -1;
}

enum started start_tlsd(const char *exe, const char *socket, struct wait *w, char why[TRIED_BYTES])
{
	const char *log = sys_getenv("TLSD_LOG");
	struct plan plan = { .exe = exe, .null = -1, .log = -1, .ready = -1,
			     .reap = sys_inherits_orphans() };
	int pipe_fds[2] = { -1, -1 };
	enum started result = CANNOT_START;
	char *argv[] = { (char *)(uintptr_t)exe, "--socket", (char *)(uintptr_t)socket,
			 "--idle-exit", "60s", "--ready-fd", "3", "--admin-socket", "none", NULL };

	forget_reapers();
	if (!limits_suffice(log && *log, why))
		return CANNOT_START;
	memcpy(plan.argv, argv, sizeof argv);
	few_variables(plan.env);
	plan.null = sys_move_up(open("/dev/null", O_RDWR | O_CLOEXEC), HIGH_FD);
	if (log && *log)
		plan.log = sys_move_up(open_log(log), HIGH_FD);
	else
		plan.log = fcntl(plan.null, F_DUPFD_CLOEXEC, HIGH_FD);

	if (plan.log < 0 && log && *log)
		text_add(why, TRIED_BYTES, "TLSD_LOG: %s: %s", log,
			 errno ? errno_text(errno) : "it must be a regular file, and no link");
	else if (plan.null < 0 || plan.log < 0 || sys_pipe(pipe_fds) < 0 ||
		 (plan.ready = sys_move_up(pipe_fds[1], HIGH_FD)) < 0 || spawn(&plan) < 0)
		text_add(why, TRIED_BYTES, "%s", errno_text(errno));
	else
		result = LISTENS; /* await_ready may change this */

	if (plan.ready >= 0)
		close(plan.ready); /* so that the pipe ends when tlsd ends */
	if (result == LISTENS)
		result = await_ready(pipe_fds[0], w, why);
	for (int i = 0, fds[] = { pipe_fds[0], plan.null, plan.log }; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	for (char **v = plan.env; *v; v++)
		free(*v);
	return result;
}
