/* chat CERT KEY COUNT PATIENCE - a chat server for many clients, in one thread with poll(2).
 *
 * The server sends each client's text to all clients. It closes a client that does not take 64 KiB
 * within PATIENCE milliseconds. The server ends when COUNT clients have left or were closed. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "tlsplugin.h"

enum { MOST = 1024 };

static int64_t handles[MOST];   /* handles[0] is the server context, the others are clients */
static struct pollfd fds[MOST]; /* fds[i] belongs to handles[i] */
static int n;                   /* the number of handles */
static int left;                /* the number of clients that have left or were closed */

static int64_t add(int64_t handle)
{
	int64_t fd = tls_Descriptor(handle);

	if (fd < 0)
		return -1;
	handles[n] = handle;
	fds[n++] = (struct pollfd){ .fd = (int)fd, .events = POLLIN };
	return handle;
}

static void tell(int64_t handle)
{
	char text[4096];

	tls_LastError(text, sizeof text);
	printf("%lld is gone: %s\n", (long long)handle, text);
}

/* Closes the client at a place of handles, and moves the last client to this place. */
static void drop(int place)
{
	tls_Close(handles[place]);
	n--;
	handles[place] = handles[n];
	fds[place] = fds[n];
	left++;
}

static void come(int64_t ctx, int patience)
{
	int64_t client = tls_Accept(ctx, "", 0);

	if (client < 0)
		return;
	if (n == MOST || tls_SetTimeout(client, patience) < 0 || add(client) < 0) {
		tell(client);
		tls_Close(client);
		left++;
		return;
	}
	printf("%lld has come\n", (long long)client);
}

/* Reads from the client at a place of handles, and sends the text to all clients. */
static void hear(int place)
{
	char said[4096];
	int64_t got = tls_Read(handles[place], said, sizeof said);

	fds[place].revents = 0;
	if (got <= 0) {
		if (got < 0)
			tell(handles[place]);
		else
			printf("%lld has left\n", (long long)handles[place]);
		drop(place);
		return;
	}
	for (int to = n - 1; to > 0; to--) {
		if (tls_Write(handles[to], said, (size_t)got) < 0) {
			tell(handles[to]);
			drop(to);
		}
	}
}

int main(int argc, char **argv)
{
	int64_t ctx = argc == 5 ? tls_NewServerContext(argv[1], argv[2]) : -1, port;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (ctx < 0 || tls_SetOption(ctx, "failed-handshakes", "skip") < 0 ||
	    (port = tls_Listen(ctx, "127.0.0.1", 0)) < 0 || add(ctx) < 0) {
		tell(ctx);
		return 1;
	}
	printf("port %d\n", (int)port);
	while (left < atoi(argv[3])) {
		if (poll(fds, (nfds_t)n, -1) < 0)
			return 2;
		/* From the last to the first: drop moves only clients that were heard already. */
		for (int place = n - 1; place > 0; place--)
			if (place < n && fds[place].revents)
				hear(place);
		if (fds[0].revents)
			come(ctx, atoi(argv[4]));
	}
	return tls_CloseServerContext(ctx) < 0;
}
