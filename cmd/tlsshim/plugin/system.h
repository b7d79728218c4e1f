/*
 * system.h - the calls that POSIX does not have, or that differ between systems.
 *
 * The other files of the plugin use only POSIX and C11; make check enforces this. A function here
 * returns what the system call returns, and sets errno, unless its comment says otherwise.
 */
#ifndef TLSPLUGIN_SYSTEM_H
#define TLSPLUGIN_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Closes the descriptor and keeps errno. It always returns -1, so that a caller can return its
 * result. */
int sys_close(int fd);

/* If fd is below min, moves the descriptor to a number of at least min, with close-on-exec. Returns
 * the descriptor's number. If it fails, it closes fd and returns -1. If fd is -1, it returns -1 and
 * keeps errno. */
int sys_move_up(int fd, int min);

/* A Unix stream socket, close-on-exec. */
int sys_socket(void);

/* The user who has made the other end of a connected Unix socket. */
int sys_peer(int fd, uid_t *user);

/* A connected pair of stream sockets, close-on-exec. */
int sys_socketpair(int fds[2]);

/* A pipe, close-on-exec and non-blocking. */
int sys_pipe(int fds[2]);

/* Send and receive without a wait and without SIGPIPE. The array pass has n descriptors, at
 * most 2, to send with the first byte. */
ssize_t sys_send(int fd, const void *at, size_t len);
ssize_t sys_send_with(int fd, const void *at, size_t len, const int *pass, size_t n);
ssize_t sys_recv(int fd, void *to, size_t len);

/* Says whether bytes, the end or an error can be received. It does not wait. */
int sys_has_input(int fd);

/* A variable of the environment. NULL if the variable is not set, or if the program has more rights
 * than its user. */
const char *sys_getenv(const char *name);

/* fork(2). The caller must block all signals before. On Linux no handlers of pthread_atfork run,
 * the host gets no SIGCHLD, and its own wait(2) does not find the new process. */
pid_t sys_fork(void);

/* Waits for a process that sys_fork has made. The process may have executed another program. */
pid_t sys_wait(pid_t pid, int *status);

/* Returns true if a process made by sys_fork has ended, and reaps the process. Also returns true if
 * the process is no child of this process. The process must not have executed another program. */
bool sys_has_ended(pid_t pid);

/* Says whether orphans become children of this process. */
bool sys_inherits_orphans(void);

/* Closes all descriptors >= lowest. It is async-signal-safe. */
void sys_close_from(unsigned lowest);

/* Names the process for ps(1), where that is possible. It is async-signal-safe. */
void sys_name(const char *name);

/* The highest number of a signal. */
int sys_last_signal(void);

/* The number of CPUs that were online when this function was first called. */
int sys_cpus(void);

/* Tells the CPU that the thread is spinning. */
void sys_pause(void);

#endif
