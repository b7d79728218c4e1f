/*
 * pipe.c - a connection of the plugin, driven by a test through pipes.
 *
 *	pipe PLUGIN.so client PORT CA
 *	pipe PLUGIN.so server PORT CERT KEY
 *
 * Standard input is sent, what is received goes to standard output, whose end is the peer's. The
 * end of input is tls_Close. Standard error has "ready VERSION" after the handshake, "ended: clean"
 * at the end, or the text of the call that failed.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tlsplugin.h"

enum { CHUNK = 1 << 18 };

static struct {
	__typeof__(&tls_NewClient) NewClient;
	__typeof__(&tls_Handshake) Handshake;
	__typeof__(&tls_Write) Write;
	__typeof__(&tls_Read) Read;
	__typeof__(&tls_Close) Close;
	__typeof__(&tls_NewServerContext) NewServerContext;
	__typeof__(&tls_Accept) Accept;
	__typeof__(&tls_SetCaBundle) SetCaBundle;
	__typeof__(&tls_Version) Version;
	__typeof__(&tls_LastError) LastError;
} tls;

static volatile int closing;

static void die(void)
{
	char text[4096] = "";

	tls.LastError(text, sizeof text);
	fprintf(stderr, "ended: %s\n", text);
	exit(1);
}

static int64_t check(int64_t result)
{
	if (result < 0)
		die();
	return result;
}

static void load(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);

#define LOAD(name) \
	if (!library || !(*(void **)&tls.name = dlsym(library, "tls_" #name))) { \
		fprintf(stderr, "ended: %s\n", dlerror()); \
		exit(3); \
	}
	LOAD(NewClient);
	LOAD(Handshake);
	LOAD(Write);
	LOAD(Read);
	LOAD(Close);
	LOAD(NewServerContext);
	LOAD(Accept);
	LOAD(SetCaBundle);
	LOAD(Version);
	LOAD(LastError);
}

/* Passes on what is received, until the peer's end or our own. */
static void *receive(void *arg)
{
	int64_t handle = *(int64_t *)arg, n = 0;
	char *data = malloc(CHUNK);

	while (data && (n = tls.Read(handle, data, CHUNK)) > 0)
		for (char *at = data; n > 0;) {
			ssize_t m = write(STDOUT_FILENO, at, (size_t)n);
			if (m < 0)
				exit(4);
			at += m;
			n -= m;
		}
	if (n < 0 && !closing)
		die();
	free(data);
	close(STDOUT_FILENO);
	return NULL;
}

int main(int argc, char **argv)
{
	static char data[CHUNK];
	char version[32];
	pthread_t thread;
	int64_t handle;
	ssize_t n;

	if (argc < 5)
		return 2;
	load(argv[1]);
	if (strcmp(argv[2], "client") == 0) {
		check(tls.SetCaBundle(argv[4]));
		handle = check(tls.NewClient("localhost", atoi(argv[3])));
		check(tls.Handshake(handle));
	} else {
		int64_t context = check(tls.NewServerContext(argv[4], argv[5]));
		handle = check(tls.Accept(context, "127.0.0.1", atoi(argv[3])));
	}
	check(tls.Version(handle, version, sizeof version));
	fprintf(stderr, "ready %s\n", version);
	if (pthread_create(&thread, NULL, receive, &handle) != 0)
		return 4;
	while ((n = read(STDIN_FILENO, data, sizeof data)) > 0)
		check(tls.Write(handle, data, (size_t)n));
	closing = 1;
	check(tls.Close(handle));
	pthread_join(thread, NULL);
	fprintf(stderr, "ended: clean\n");
	return 0;
}
