/*
 * A libssl with faults, for tests. It links with the real libssl.
 *
 * Without a macro it replaces SSL_read. If a caller asks SSL_read for a number of bytes that is the
 * number of a fault, such as 1001, the fault happens.
 *
 * With -DESCAPE it plays an attacker in a worker. It replaces SSL_CTX_new by a function that tries
 * acts which a worker must not be able to do, and writes two log entries. "escape" has the errno of
 * each act, or 0 if the act has succeeded. "inside" has what the library sees of the process.
 *
 * With -DTALK=N it forges a log entry when it is loaded, and then writes N entries.
 */
#define _GNU_SOURCE
#include <asm/sockios.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef ESCAPE

void *SSL_CTX_new(const void *method);

extern char **environ;

static int outcome(long result)
{
	return result < 0 ? errno : 0;
}

static int execute(void)
{
	char *argv[] = { (char *)"/bin/true", NULL };

	execv(argv[0], argv);
	return errno;
}

static int settime(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return outcome(clock_settime(CLOCK_REALTIME, &now));
}

static int become(void)
{
	return outcome(setuid(65534));
}

static int attach(void)
{
	int result = outcome(mount("none", getenv("LANG"), "tmpfs", 0, NULL));

	if (result == 0)
		umount2(getenv("LANG"), MNT_DETACH);
	return result;
}

static int shared(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		0) == MAP_FAILED ? errno : 0;
}

/*
 * segment attaches a new segment of shared memory of System V. If it cannot make a segment, it
 * attaches the segment with the ID 0.
 */
static int segment(void)
{
	int id = shmget(IPC_PRIVATE, 4096, 0600);
	void *at = shmat(id < 0 ? 0 : id, NULL, 0);
	int result = at == (void *)-1 ? errno : 0;

	if (id >= 0)
		shmctl(id, IPC_RMID, NULL);
	return result;
}

static int message(void)
{
	struct { long type; char text[1]; } m = { 1, { 'x' } };
	int id = msgget(IPC_PRIVATE, 0600);
	int result = outcome(msgsnd(id < 0 ? 0 : id, &m, 1, IPC_NOWAIT));

	if (id >= 0)
		msgctl(id, IPC_RMID, NULL);
	return result;
}

static int affinity(void)
{
	unsigned long mask[16];
	long n = syscall(SYS_sched_getaffinity, getppid(), sizeof mask, mask);

	return n < 0 ? errno : outcome(syscall(SYS_sched_setaffinity, getppid(), n, mask));
}

/* owner asks the kernel to send the signals of a socket to this process. */
static int owner(int by_ioctl)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), pid = getpid();
	int result = outcome(by_ioctl ? ioctl(fd, FIOSETOWN, &pid) : fcntl(fd, F_SETOWN, pid));

	close(fd);
	return result;
}

/*
 * apart makes an attempt in a child process, because a success would change the process. If it
 * cannot make a child, it makes the attempt in this process.
 */
static int apart(int (*what)(void))
{
	int status = 0;
	pid_t child = fork();

	if (child < 0)
		return what();
	if (child == 0)
		_exit(what());
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int child(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return errno;
	waitpid(pid, NULL, 0);
	return 0;
}

static void escape(void)
{
	/* LANG is one of the few variables that a worker gets, so the test puts a folder there */
	char byte, *outside = getenv("LANG");
	char file[512];
	struct iovec to = { &byte, 1 }, from = { outside, 1 };
	struct rlimit limit = { 1, 1 };

	snprintf(file, sizeof file, "%s/written", outside);
	fprintf(stderr, "{\"level\":\"info\",\"msg\":\"escape\",\"write\":%d,",
		outcome(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)));
	snprintf(file, sizeof file, "%s/there", outside);
	fprintf(stderr, "\"overwrite\":%d,", outcome(open(file, O_WRONLY | O_CLOEXEC)));
	fprintf(stderr, "\"truncate\":%d,", outcome(truncate(file, 1)));
	fprintf(stderr, "\"chmod\":%d,", outcome(chmod(file, 0644)));
	fprintf(stderr, "\"read\":%d,", outcome(open(file, O_RDONLY | O_CLOEXEC)));
	fprintf(stderr, "\"remove\":%d,", outcome(unlink(file)));
	snprintf(file, sizeof file, "%s/made", outside);
	fprintf(stderr, "\"mkdir\":%d,", outcome(mkdir(file, 0700)));
	fprintf(stderr, "\"unix\":%d,", outcome(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	fprintf(stderr, "\"tcp\":%d,", outcome(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	fprintf(stderr, "\"raw\":%d,", outcome(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, 1)));
	fprintf(stderr, "\"signal\":%d,", outcome(kill(getppid(), 0)));
	fprintf(stderr, "\"ownSignal\":%d,", outcome(kill(getpid(), 0)));
	fprintf(stderr, "\"ptrace\":%d,", outcome(ptrace(PTRACE_SEIZE, getppid(), NULL, NULL)));
	fprintf(stderr, "\"memory\":%d,",
		outcome(process_vm_readv(getppid(), &to, 1, &from, 1, 0)));
	fprintf(stderr, "\"limit\":%d,", outcome(prlimit(getppid(), RLIMIT_CORE, NULL, &limit)));
	fprintf(stderr, "\"unshare\":%d,", outcome(syscall(SYS_unshare, 0)));
	snprintf(file, sizeof file, "/proc/%d/environ", (int)getppid());
	fprintf(stderr, "\"environ\":%d,", outcome(open(file, O_RDONLY | O_CLOEXEC)));
	fprintf(stderr, "\"elsewhere\":%d,",
		outcome(open("/var", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
	fprintf(stderr, "\"ring\":%d,", outcome(syscall(SYS_io_uring_setup, 0, NULL)));
	fprintf(stderr, "\"memfd\":%d,", outcome(syscall(SYS_memfd_create, "x", 0)));
	fprintf(stderr, "\"shared\":%d,", shared());
	fprintf(stderr, "\"segment\":%d,\"message\":%d,", segment(), message());
	fprintf(stderr, "\"priority\":%d,",
		outcome(setpriority(PRIO_PROCESS, getppid(),
		getpriority(PRIO_PROCESS, getppid()))));
	fprintf(stderr, "\"affinity\":%d,\"owner\":%d,\"ioctlOwner\":%d,", affinity(),
		owner(0), owner(1));
	fprintf(stderr, "\"pidfd\":%d,", outcome(syscall(SYS_pidfd_open, getppid(), 0)));
	fprintf(stderr, "\"dumpable\":%d,", outcome(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)));
	fprintf(stderr, "\"mount\":%d,", apart(attach));
	fprintf(stderr, "\"setuid\":%d,", apart(become));
	fprintf(stderr, "\"settime\":%d,", apart(settime));
	fprintf(stderr, "\"fork\":%d,", child());
	fprintf(stderr, "\"exec\":%d}\n", apart(execute));
}

static void inside(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];
	struct rlimit core = { 1, 1 };
	struct dirent *entry;
	struct stat in;
	char **e;
	DIR *dir;
	int bounded = 0, c;

	memset(sets, 0, sizeof sets);
	syscall(SYS_capget, &header, sets);
	for (c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
		bounded += prctl(PR_CAPBSET_READ, c, 0, 0, 0);
	getrlimit(RLIMIT_CORE, &core);
	memset(&in, 0, sizeof in);
	fstat(0, &in);
	fprintf(stderr,
		"{\"level\":\"info\",\"msg\":\"inside\",\"noNewPrivileges\":%d,\"dumpable\":%d,"
		"\"core\":%d,",
		prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
		(int)(core.rlim_cur | core.rlim_max));
	fprintf(stderr,
		"\"permitted\":%u,\"effective\":%u,\"inheritable\":%u,\"upper\":%u,"
		"\"bounding\":%d,",
		sets[0].permitted, sets[0].effective, sets[0].inheritable,
		sets[1].permitted | sets[1].effective | sets[1].inheritable, bounded);
	fprintf(stderr, "\"stdin\":%d,\"leader\":%d,\"terminal\":%d,", S_ISCHR(in.st_mode) &&
		in.st_rdev == 0x103,
		getsid(0) == getpid(), outcome(open("/dev/tty", O_RDONLY | O_CLOEXEC)));
	fprintf(stderr, "\"environment\":\"");
	for (e = environ; *e; e++)
		fprintf(stderr, "%.*s ", (int)strcspn(*e, "="), *e);
	fprintf(stderr, "\",\"files\":\"");
	dir = opendir("/proc/self/fd");
	while (dir && (entry = readdir(dir))) {
		char name[300], to[300];
		ssize_t n;

		snprintf(name, sizeof name, "/proc/self/fd/%s", entry->d_name);
		n = readlink(name, to, sizeof to - 1);
		if (n > 0 && atoi(entry->d_name) != dirfd(dir))
			fprintf(stderr, "%s:%.*s ", entry->d_name, (int)n, to);
	}
	if (dir)
		closedir(dir);
	fprintf(stderr, "\"}\n");
}

void *SSL_CTX_new(const void *method)
{
	static int tried;
	void *(*real)(const void *);

	*(void **)&real = dlsym(RTLD_NEXT, "SSL_CTX_new");
	/* A call without a method only checks the library, before the confinement. */
	if (method && !tried++) {
		inside();
		escape();
	}
	return real(method);
}

#elif defined TALK

/* talk forges a line of the daemon's log, and then floods the log. */
__attribute__((constructor)) static void talk(void)
{
	int i;

	fprintf(stderr,
		"{\"level\":\"info\",\"msg\":\"said\\n00:00:00.000\\tINFO\\taudit\\t"
		"denied\\u001b[2J\\u202e\\u009b1m\","
		"\"field\":\"x\\u001b[2J\\u007f\\u202e\","
		"\"list\":[{\"a\\u202e\":\"b\\u009b1m\"}],\"logger\":\"audit\"}\n");
	for (i = 0; i < TALK; i++)
		fprintf(stderr, "{\"level\":\"info\",\"msg\":\"flood\",\"number\":%d}\n", i);
}

#else

int SSL_read(void *ssl, void *buf, int num);

static int overflow(int n)
{
	volatile char frame[4096];

	frame[n & 4095] = 1;
	return n < 0 ? 0 : overflow(n + 1) + frame[0];
}

/* eat takes memory in pieces of 1 MiB until there is none. It returns the number of pieces. */
static int eat(void)
{
	int n;

	for (n = 0; n < 1 << 11; n++) {
		char *piece = malloc(1 << 20);

		if (!piece)
			return n;
		memset(piece, 1, 1 << 20);
	}
	return n;
}

int SSL_read(void *ssl, void *buf, int num)
{
	static int (*real)(void *, void *, int);

	switch (num) {
	case 1001:
		*(volatile int *)8 = 1;
		return -1;
	case 1002:
		abort();
	case 1003:
		kill(getpid(), SIGBUS);
		for (;;)
			pause();
	case 1004:
		exit(3);
	case 1005:
		return overflow(0);
	case 1006:
		for (;;)
			pause();
	case 1007:
		kill(getpid(), SIGSTOP);
		for (;;)
			pause();
	case 1009:
		eat();
		*(volatile int *)8 = 1; /* like code that does not check for NULL */
		return -1;
	case 1010: { /* like code that checks for NULL */
		int n = eat();

		memcpy(buf, "full", 4);
		fprintf(stderr, "{\"level\":\"info\",\"msg\":\"full\",\"mebibytes\":%d}\n", n);
		return 4;
	}
	}
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "SSL_read");
	return real(ssl, buf, num);
}

#endif
