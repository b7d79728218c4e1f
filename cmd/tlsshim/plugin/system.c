#define _GNU_SOURCE
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Darwin: SO_NOSIGPIPE instead */
#endif

int sys_close(int fd)
{
	int error = errno;

	close(fd);
	errno = error;
	return -1;
}

int sys_move_up(int fd, int min)
{
	int up = fd;

	if (fd < 0 || fd >= min)
		return fd;
	up = fcntl(fd, F_DUPFD_CLOEXEC, min);
	if (up < 0 && errno == EINVAL)
		errno = EMFILE; /* RLIMIT_NOFILE is min or less */
	sys_close(fd);
	return up;
}

#ifndef __linux__
/* Makes both descriptors close-on-exec. If nonblock is set, also makes them non-blocking. Otherwise
 * they are sockets, and get SO_NOSIGPIPE where it exists. Linux needs no such function: there
 * socket(2), socketpair(2) and pipe2(2) set the flags. */
static int prepare(int fds[2], int nonblock)
{
	for (int i = 0; i < 2; i++) {
		int bad = fcntl(fds[i], F_SETFD, FD_CLOEXEC) < 0;

		bad = bad || (nonblock && fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0);
#ifdef SO_NOSIGPIPE
		int on = 1;

		bad = bad || (!nonblock && setsockopt(fds[i], SOL_SOCKET, SO_NOSIGPIPE, &on,
						      sizeof on) < 0);
#endif
		if (bad) {
			sys_close(fds[0]);
			return sys_close(fds[1]);
		}
	}
	return 0;
}
#endif

/* The size of a data channel's socket buffer in one direction. Linux's default is 208 KiB. With
 * writes of 1 MiB, the larger buffer saves 5 % of the CPU time of all processes together, because
 * the kernel switches between them less often. */
enum { ROOM_BYTES = 512 * 1024 };

int sys_socket(void)
{
#ifdef __linux__
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
#else
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int both[2] = { fd, fd };

	return fd < 0 || prepare(both, 0) < 0 ? -1 : fd;
#endif
}

int sys_peer(int fd, uid_t *user)
{
#ifdef __linux__
	struct ucred peer;
	socklen_t len = sizeof peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -1;
	*user = peer.uid;
	return 0;
#else
	gid_t group;

	return getpeereid(fd, user, &group);
#endif
}

int sys_socketpair(int fds[2])
{
	int room = ROOM_BYTES;
#ifdef __linux__
	int result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
#else
	int result = socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 ? -1 : prepare(fds, 0);
#endif

	for (int i = 0; result == 0 && i < 2; i++) /* it is no failure if the system gives less */
		(void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	return result;
}

int sys_pipe(int fds[2])
{
#ifdef __linux__
	return pipe2(fds, O_CLOEXEC | O_NONBLOCK);
#else
	return pipe(fds) < 0 ? -1 : prepare(fds, 1);
#endif
}

ssize_t sys_send(int fd, const void *at, size_t len)
{
	return send(fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t sys_send_with(int fd, const void *at, size_t len, const int *pass, size_t n)
{
	alignas(struct cmsghdr) char room[CMSG_SPACE(2 * sizeof *pass)] = { 0 };
	struct iovec part = { (void *)(size_t)at, len };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room,
			    .msg_controllen = CMSG_SPACE(n * sizeof *pass) };
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (!c)
		return sys_send(fd, at, len);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof *pass);
	memcpy(CMSG_DATA(c), pass, n * sizeof *pass);
	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t sys_recv(int fd, void *to, size_t len)
{
	return recv(fd, to, len, MSG_DONTWAIT);
}

int sys_has_input(int fd)
{
	char byte;

	if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
		return 1;
	return errno != EAGAIN && errno != EINTR;
}

const char *sys_getenv(const char *name)
{
#ifdef __linux__
	return secure_getenv(name);
#else
	return issetugid() ? NULL : getenv(name);
#endif
}

/* --- processes --- */

pid_t sys_fork(void)
{
#ifdef __linux__
	return (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
#else
	return fork();
#endif
}

pid_t sys_wait(pid_t pid, int *status)
{
#ifdef __linux__
	return waitpid(pid, status, __WALL);
#else
	return waitpid(pid, status, 0);
#endif
}

bool sys_has_ended(pid_t pid)
{
#ifdef __linux__
	return waitpid(pid, NULL, __WCLONE | WNOHANG) != 0;
#else
	return waitpid(pid, NULL, WNOHANG) != 0;
#endif
}

bool sys_inherits_orphans(void)
{
#ifdef __linux__
	int subreaper = 0;
	unsigned long at = (unsigned long)(uintptr_t)&subreaper;

	if (prctl(PR_GET_CHILD_SUBREAPER, at, 0UL, 0UL, 0UL) == 0 && subreaper)
		return true;
#endif
	return getpid() == 1;
}

void sys_close_from(unsigned lowest)
{
	enum { MOST_FDS = 1 << 20 };
	struct rlimit limit;
	rlim_t most = MOST_FDS;

#ifdef SYS_close_range
	if (syscall(SYS_close_range, lowest, ~0U, 0) == 0)
		return;
#endif
	/* Linux before 5.9, and other systems. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < most)
		most = limit.rlim_cur;
	for (rlim_t fd = lowest; fd < most; fd++)
		close((int)fd);
}

void sys_name(const char *name)
{
#ifdef __linux__
	prctl(PR_SET_NAME, name, 0UL, 0UL, 0UL);
#else
	(void)name;
#endif
}

int sys_last_signal(void)
{
#ifdef SIGRTMAX
	return SIGRTMAX;
#else
	return NSIG - 1;
#endif
}

/* --- the processor --- */

int sys_cpus(void)
{
	static atomic_int known; /* kept, because sysconf reads a file at each call */
	int n = atomic_load(&known);

	if (n == 0) {
		n = (int)sysconf(_SC_NPROCESSORS_ONLN);
		atomic_store(&known, n > 0 ? n : 1);
	}
	return n;
}

void sys_pause(void)
{
#if defined __x86_64__ || defined __i386__
	__builtin_ia32_pause();
#elif defined __aarch64__
	__asm__ volatile("yield");
#endif
}
