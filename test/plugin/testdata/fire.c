/*
 * fire.c - eight threads that talk while tls_Cancel is called at random.
 *
 *	fire PLUGIN.so HOST PORT CA ROUNDS
 *
 * The other end echoes. The main thread calls tls_Cancel, and so does a handler of
 * SIGALRM, which interrupts any of the threads. Each call of the eight threads must
 * succeed or be cancelled. At the end, one conversation without a tls_Cancel must
 * succeed. Prints how many calls were made, and how many of them were cancelled.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum { THREADS = 8, TEXT = 1024 };

static const char *host;
static int32_t port;
static int rounds;
static atomic_int calls, cancelled, talking;

static void die(const char *what)
{
	char text[TEXT] = "";

	LastError(text, sizeof text);
	fprintf(stderr, "fire: %s: %s\n", what, text);
	exit(3);
}

/* Whether the call has succeeded; if not, it was cancelled. */
static int succeeded(int64_t result)
{
	char text[TEXT];

	atomic_fetch_add(&calls, 1);
	if (result >= 0)
		return 1;
	LastError(text, sizeof text);
	if (!strstr(text, "cancelled"))
		die("a call has failed, and not because of tls_Cancel");
	atomic_fetch_add(&cancelled, 1);
	return 0;
}

/* One conversation. If a call after NewClient is cancelled, the connection is closed at once. */
static int talk(void)
{
	static const char hello[] = "hello";
	char data[64];
	int64_t c = NewClient(host, port), n;
	int ok;

	if (!succeeded(c))
		return 0;
	ok = succeeded(Handshake(c)) && succeeded(Write(c, hello, sizeof hello));
	for (size_t got = 0; ok && got < sizeof hello; got += (size_t)n) {
		ok = succeeded(n = Read(c, data + got, sizeof data - got));
		if (n == 0)
			die("the echo ends");
	}
	if (ok && memcmp(data, hello, sizeof hello) != 0)
		die("the echo differs");
	if (ok) /* no byte comes: this call waits until it is cancelled */
		succeeded(Read(c, data, sizeof data));
	succeeded(Close(c));
	return ok;
}

static void *thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < rounds; i++)
		talk();
	atomic_fetch_sub(&talking, 1);
	return NULL;
}

static void on_alarm(int sig)
{
	int before = errno;

	(void)sig;
	if (Cancel() != 0 || errno != before)
		_exit(4);
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	struct sigaction act = { .sa_handler = on_alarm };
	struct itimerval every = { { 0, 3000 }, { 0, 3000 } }, never = { { 0, 0 }, { 0, 0 } };
	unsigned seed = 1;

	if (argc != 6 || !load_plugin(argv[1]))
		return 2;
	host = argv[2];
	port = atoi(argv[3]);
	rounds = atoi(argv[5]);
	if (SetCaBundle(argv[4]) != 0)
		die("trust");
	atomic_store(&talking, THREADS);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, thread, NULL) != 0)
			return 2;
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	while (atomic_load(&talking) > 0) {
		struct timespec pause = { 0, rand_r(&seed) % 500000 };
		nanosleep(&pause, NULL);
		Cancel();
	}
	setitimer(ITIMER_REAL, &never, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("calls %d cancelled %d\n", atomic_load(&calls), atomic_load(&cancelled));

	/* One conversation without a tls_Cancel. */
	int64_t c = NewClient(host, port);
	char data[8];
	if (c < 0 || Handshake(c) != 0 || Write(c, "x", 1) != 1 || Read(c, data, 1) != 1 ||
		*data != 'x' || Close(c) != 0)
		die("at the end");
	dlclose(plugin);
	return 0;
}
