/*
 * system.h - the calls that POSIX does not have, or that differ between systems.
 *
 * The other files of the library use POSIX and C11 only; make check holds that.
 * Each function here returns what the system call returns, with errno.
 */
#ifndef TLSPLUGIN_SYSTEM_H
#define TLSPLUGIN_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Closes the descriptor and keeps errno. Returns -1. */
int sys_close(int fd);

/* The same descriptor, which is closed, with a number from least on; close-on-exec. An fd of -1 is
 * an error that errno tells. */
int sys_move_up(int fd, int least);

/* A Unix stream socket, close-on-exec. */
int sys_socket(void);

/* The user who has made the other end of a connected Unix socket. */
int sys_peer(int fd, uid_t *user);

/* A connected pair of stream sockets, close-on-exec. */
int sys_socketpair(int fds[2]);

/* A pipe, close-on-exec and non-blocking. */
int sys_pipe(int fds[2]);

/* Send and receive without a wait and without SIGPIPE. pass are n descriptors, at most 2, that go
 * along with the first byte. */
ssize_t sys_send(int fd, const void *at, size_t len);
ssize_t sys_send_with(int fd, const void *at, size_t len, const int *pass, size_t n);
ssize_t sys_recv(int fd, void *to, size_t len);

/* Whether there is something to receive, be it the end or an error. It does not wait. */
int sys_has_input(int fd);

/* A variable of the environment; NULL in a program that has more rights than its user. */
const char *sys_getenv(const char *name);

/* fork(2), before which the caller blocks all signals. On Linux no handlers of pthread_atfork run,
 * and the host is not told of the new process: not by SIGCHLD, and not by its own wait(2). */
pid_t sys_fork(void);

/* Waits for a process that sys_fork has made, whatever it has executed since. */
pid_t sys_wait(pid_t pid, int *status);

/* Whether a process that sys_fork has made, and that has executed nothing, has ended. Then it is
 * reaped. */
bool sys_has_ended(pid_t pid);

/* Whether orphans become children of this process. */
bool sys_inherits_orphans(void);

/* Closes all descriptors from first on. It is async-signal-safe. */
void sys_close_from(unsigned first);

/* Names the process for ps(1), where that is possible. It is async-signal-safe. */
void sys_name(const char *name);

/* The highest number of a signal. */
int sys_last_signal(void);

/* How many CPUs were online when it was first asked. */
int sys_cpus(void);

/* Tells the CPU that the thread is spinning. */
void sys_pause(void);

#endif
