/*
 * A libssl that goes wrong on purpose: the real one, on which it depends, but for
 * one function. Built with -DHANG, -DCRASH or -DESCAPE; the last tries, in the place of
 * code that has taken the process over, what a worker must not be able to do, and
 * reports it in the form of a log entry, 0 for what it could, else the errno.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef ESCAPE

void *SSL_CTX_new(const void *method);

static int outcome(long result)
{
	return result < 0 ? errno : 0;
}

static int run(const char *program)
{
	char *argv[] = { (char *)program, NULL };
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		execv(program, argv);
		_exit(errno);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void escape(void)
{
	char byte, *outside = getenv("LANG"); /* a folder: one of the few variables that a worker gets */
	char file[512];
	struct iovec to = { &byte, 1 }, from = { outside, 1 };

	snprintf(file, sizeof file, "%s/written", outside);
	fprintf(stderr, "{\"level\":\"info\",\"msg\":\"escape\",\"write\":%d,", outcome(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)));
	snprintf(file, sizeof file, "%s/there", outside);
	fprintf(stderr, "\"overwrite\":%d,", outcome(open(file, O_WRONLY | O_CLOEXEC)));
	fprintf(stderr, "\"truncate\":%d,", outcome(truncate(file, 1)));
	fprintf(stderr, "\"read\":%d,", outcome(open(file, O_RDONLY | O_CLOEXEC)));
	fprintf(stderr, "\"remove\":%d,", outcome(unlink(file)));
	snprintf(file, sizeof file, "%s/made", outside);
	fprintf(stderr, "\"mkdir\":%d,", outcome(mkdir(file, 0700)));
	fprintf(stderr, "\"unix\":%d,", outcome(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	fprintf(stderr, "\"tcp\":%d,", outcome(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	fprintf(stderr, "\"signal\":%d,", outcome(kill(getppid(), 0)));
	fprintf(stderr, "\"ownSignal\":%d,", outcome(kill(getpid(), 0)));
	fprintf(stderr, "\"ptrace\":%d,", outcome(ptrace(PTRACE_SEIZE, getppid(), NULL, NULL)));
	fprintf(stderr, "\"memory\":%d,", outcome(process_vm_readv(getppid(), &to, 1, &from, 1, 0)));
	fprintf(stderr, "\"unshare\":%d,", outcome(syscall(SYS_unshare, 0)));
	fprintf(stderr, "\"ring\":%d,", outcome(syscall(SYS_io_uring_setup, 0, NULL)));
	fprintf(stderr, "\"exec\":%d}\n", run("/bin/true"));
}

void *SSL_CTX_new(const void *method)
{
	static int tried;
	void *(*real)(const void *);

	*(void **)&real = dlsym(RTLD_NEXT, "SSL_CTX_new");
	/* Without a method it is the loader's check, which comes before the confinement. */
	if (method && !tried++)
		escape();
	return real(method);
}

#else

int SSL_read(void *ssl, void *buf, int num);

int SSL_read(void *ssl, void *buf, int num)
{
	(void)ssl;
	(void)buf;
	(void)num;
#ifdef HANG
	for (;;)
		pause();
#else
	*(volatile int *)8 = 1;
	return -1;
#endif
}

#endif
