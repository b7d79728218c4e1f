/*
 * start.c - starts a tlsd that belongs to nobody.
 *
 * It is a grandchild: the process between ends at once, so that init inherits
 * tlsd. Both are made with clone(2) without an exit signal. So the host gets no
 * SIGCHLD, its own waitpid(-1) never meets them, and its SIGCHLD disposition
 * does not matter. Between clone and exec only what is async-signal-safe is done.
 */
#define _GNU_SOURCE
#include "find.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "text.h"

enum {
	READY_WAIT_MS = 10000,
	READY_FD = 3, /* where tlsd writes a line feed when it listens */
	HIGH_FD = 10, /* and up: not in the way of the above */
	NOT_STARTED = 'x', /* on the same pipe, before an errno */
	MOST_FDS = 1 << 20,
};

extern char **environ;

/* All that the new process needs, made before it. */
struct plan {
	const char *exe;
	char *argv[8];
	char **env;
	int null, log, ready; /* descriptors */
};

static pid_t clone_quietly(void)
{
	return (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
}

static void close_from(unsigned first)
{
	struct rlimit limit;
	rlim_t most = MOST_FDS;

#ifdef SYS_close_range
	if (syscall(SYS_close_range, first, ~0U, 0) == 0)
		return;
#endif
	/* Linux before 5.9. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < most)
		most = limit.rlim_cur;
	for (rlim_t fd = first; fd < most; fd++)
		close((int)fd);
}

/* In the new process: becomes tlsd. The signals are still blocked. */
static _Noreturn void become(const struct plan *plan)
{
	struct sigaction standard;
	sigset_t none;
	char failed[2];

	memset(&standard, 0, sizeof standard);
	standard.sa_handler = SIG_DFL;
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		sigaction(sig, &standard, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);

	setsid();
	dup2(plan->null, STDIN_FILENO);
	dup2(plan->null, STDOUT_FILENO);
	dup2(plan->log, STDERR_FILENO);
	dup2(plan->ready, READY_FD);
	close_from(READY_FD + 1);
	if (chdir("/") == 0)
		execve(plan->exe, plan->argv, plan->env);
	failed[0] = NOT_STARTED;
	failed[1] = (char)errno;
	while (write(READY_FD, failed, sizeof failed) < 0 && errno == EINTR)
		continue;
	_exit(127);
}

/* Returns 0, or -1 and errno. */
static int spawn(const struct plan *plan)
{
	sigset_t all, before;
	pid_t between, tlsd;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* none of the host's handlers may run in the new processes */
	between = clone_quietly();
	if (between == 0) {
		tlsd = clone_quietly();
		if (tlsd == 0)
			become(plan);
		_exit(tlsd < 0 ? errno : 0);
	}
	error = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (between > 0) {
		int status = 0;
		while (waitpid(between, &status, __WALL) < 0 && errno == EINTR)
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
		text_add(why, TRIED_BYTES, "not waited for");
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
	text_add(why, TRIED_BYTES, "ended before it listened (TLSD_LOG can name a file for its messages)");
	return HAS_ENDED;
}

/* The environment for tlsd: ours without what is meant for this process alone, sd_notify(3), sd_listen_fds(3). */
static char **environment(void)
{
	static const char *const ours[] = { "NOTIFY_SOCKET=", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
					    "WATCHDOG_PID=", "WATCHDOG_USEC=" };
	size_t n = 0, kept = 0;
	char **env;

	while (environ && environ[n])
		n++;
	env = calloc(n + 1, sizeof *env);
	if (!env)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t o = 0;
		while (o < sizeof ours / sizeof *ours && strncmp(environ[i], ours[o], strlen(ours[o])) != 0)
			o++;
		if (o == sizeof ours / sizeof *ours)
			env[kept++] = environ[i];
	}
	return env;
}

/* The same descriptor with a higher number. */
static int move_up(int fd)
{
	int up = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD), error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return up;
}

enum started start_tlsd(const char *exe, const char *socket, struct wait *w, char why[TRIED_BYTES])
{
	const char *log = secure_getenv("TLSD_LOG");
	struct plan plan = { .exe = exe, .null = -1, .log = -1, .ready = -1 };
	int pipe_fds[2] = { -1, -1 };
	enum started result = CANNOT_START;
	char *argv[] = { (char *)(uintptr_t)exe, "--socket", (char *)(uintptr_t)socket, "--idle-exit", "60s",
			 "--ready-fd", "3", NULL };

	memcpy(plan.argv, argv, sizeof argv);
	plan.env = environment();
	plan.null = move_up(open("/dev/null", O_RDWR | O_CLOEXEC));
	if (log && *log)
		plan.log = move_up(open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
	else
		plan.log = fcntl(plan.null, F_DUPFD_CLOEXEC, HIGH_FD);

	if (plan.log < 0 && log && *log)
		text_add(why, TRIED_BYTES, "TLSD_LOG: %s: %s", log, errno_text(errno));
	else if (!plan.env || plan.null < 0 || plan.log < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0 ||
		 (plan.ready = move_up(pipe_fds[1])) < 0 || spawn(&plan) < 0)
		text_add(why, TRIED_BYTES, "%s", errno_text(errno));
	else
		result = LISTENS; /* if it says so */

	if (plan.ready >= 0)
		close(plan.ready); /* so that the pipe ends when tlsd does */
	if (result == LISTENS)
		result = await_ready(pipe_fds[0], w, why);
	if (pipe_fds[0] >= 0)
		close(pipe_fds[0]);
	if (plan.null >= 0)
		close(plan.null);
	if (plan.log >= 0)
		close(plan.log);
	free(plan.env);
	return result;
}
