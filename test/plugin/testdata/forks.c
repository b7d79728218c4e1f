/*
 * forks.c - a program that forks again and again while its other threads talk.
 *
 *	forks PLUGIN.so HOST PORT CA ROUNDS
 *
 * The other end echoes. Each child of a fork ends at once, in one of several ways. Prints "done".
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

enum { THREADS = 4, TEXT = 1024 };

extern char **environ;

static const char *host;
static int32_t port;
static atomic_int over;

static void die(const char *what)
{
	char text[TEXT] = "";

	LastError(text, sizeof text);
	fprintf(stderr, "forks: %s: %s\n", what, text);
	_exit(3);
}

/* Connects, talks and closes again and again, so that some fork falls into each of these steps. */
static void *talk(void *arg)
{
	char data[TEXT];

	(void)arg;
	while (!atomic_load(&over)) {
		int64_t c = NewClient(host, port), n;

		if (c < 0 || Handshake(c) != 0)
			die("connect");
		for (int i = 0; i < 20; i++) {
			memset(data, i, sizeof data);
			if (Write(c, data, sizeof data) != sizeof data)
				die("write");
			for (size_t got = 0; got < sizeof data; got += (size_t)n) {
				n = Read(c, data, sizeof data - got);
				if (n <= 0)
					die("read");
				for (int64_t at = 0; at < n; at++)
					if (data[at] != i)
						die("the data differs");
			}
		}
		if (Close(c) != 0)
			die("close");
	}
	return NULL;
}

static void one_child(int way)
{
	static char *const argv[] = { "true", NULL };
	pid_t pid = -1;
	int status;

	switch (way) {
	case 0:
		if ((pid = fork()) == 0)
			_exit(0);
		break;
	case 1: /* exit calls the plugin's destructor in the child */
		if ((pid = fork()) == 0)
			exit(0);
		break;
	case 2:
		if ((pid = vfork()) == 0)
			_exit(0);
		break;
	case 3:
		if (posix_spawnp(&pid, "true", NULL, NULL, argv, environ) != 0)
			pid = -1;
		break;
	case 4: /* the child uses its parent's handle: each call must fail */
		if ((pid = fork()) == 0)
			_exit(Write(1, "x", 1) == -1 && Read(1, &status, 1) == -1 &&
				Close(1) == -1 ? 0 : 1);
		break;
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		die("a child has failed");
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	if (argc != 6 || !load_plugin(argv[1]))
		return 2;
	host = argv[2];
	port = atoi(argv[3]);
	if (*argv[4] && SetCaBundle(argv[4]) != 0)
		die("trust");
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, talk, NULL) != 0)
			return 2;
	for (int i = 0; i < atoi(argv[5]); i++)
		one_child(i % 5);
	atomic_store(&over, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	puts("done");
	return 0;
}
