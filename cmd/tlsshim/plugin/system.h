/*
 * system.h - the calls that POSIX does not have, or that differ between systems.
 *
 * The other files of the library use POSIX and C11 only, except for find.c and start.c.
 * Each function here returns what the system call returns, with errno.
 */
#ifndef TLSPLUGIN_SYSTEM_H
#define TLSPLUGIN_SYSTEM_H

#include <stddef.h>
#include <sys/types.h>

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

/* How many CPUs were online when it was first asked. */
int sys_cpus(void);

/* Tells the CPU that the thread is spinning. */
void sys_pause(void);

#endif
