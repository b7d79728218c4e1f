/*
 * bulk.c - much data in both directions at once, from several threads.
 *
 *	bulk PLUGIN.so HOST PORT CA CONNECTIONS BYTES CHUNK
 *
 * The other end echoes. Each connection has a thread that writes BYTES and one
 * that reads as many and compares them. CA may be empty. Prints "done".
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

static const char *host;
static int32_t port;
static size_t bytes, chunk;

static void die(const char *what)
{
	char text[1024] = "";

	LastError(text, sizeof text);
	fprintf(stderr, "bulk: %s: %s\n", what, text);
	exit(3);
}

/* The byte of a connection's stream at this offset. */
static unsigned char pattern(int64_t handle, size_t offset)
{
	return (unsigned char)((offset >> 16) * 7 + (offset >> 8) * 3 + offset + (size_t)handle);
}

static void *writer(void *arg)
{
	int64_t handle = *(int64_t *)arg;
	unsigned char *data = malloc(chunk);

	for (size_t sent = 0, n; sent < bytes; sent += n) {
		n = bytes - sent < chunk ? bytes - sent : chunk;
		for (size_t i = 0; i < n; i++)
			data[i] = pattern(handle, sent + i);
		if (Write(handle, data, n) != (int64_t)n)
			die("write");
	}
	free(data);
	return NULL;
}

static void *connection(void *arg)
{
	int64_t handle = NewClient(host, port), n;
	unsigned char *data = malloc(chunk);
	pthread_t other;

	(void)arg;
	if (handle < 0 || Handshake(handle) != 0)
		die("connect");
	if (pthread_create(&other, NULL, writer, &handle) != 0)
		die("pthread_create");
	for (size_t got = 0; got < bytes; got += (size_t)n) {
		n = Read(handle, data, chunk);
		if (n <= 0)
			die("read");
		for (size_t i = 0; i < (size_t)n; i++)
			if (data[i] != pattern(handle, got + i))
				die("the data differs");
	}
	pthread_join(other, NULL);
	if (Close(handle) != 0)
		die("close");
	free(data);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	int n;

	if (argc != 8 || !load_plugin(argv[1]))
		return 2;
	host = argv[2];
	port = atoi(argv[3]);
	if (*argv[4] && SetCaBundle(argv[4]) != 0)
		die("trust");
	n = atoi(argv[5]);
	bytes = strtoull(argv[6], NULL, 10);
	chunk = strtoull(argv[7], NULL, 10);
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, connection, NULL) != 0)
			die("pthread_create");
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	puts("done");
	dlclose(plugin);
	return 0;
}
