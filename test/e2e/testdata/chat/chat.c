/* chat CERT KEY COUNT PATIENCE - a chat for many clients in one thread, by poll(2).
 *
 * What a client says is sent to all. A client that does not take 64 KiB within PATIENCE
 * milliseconds is closed. It ends when COUNT clients have left. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "tlsplugin.h"

enum { MOST = 1024 };

static int64_t handles[MOST]; /* the context first */
static struct pollfd fds[MOST];
static int n, left;

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

/* Closes the client of a place, which the last one takes. */
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

/* Reads what the client of a place says, and says it to all. */
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
		/* From the last to the first: a free place is taken by one that was heard. */
		for (int place = n - 1; place > 0; place--)
			if (place < n && fds[place].revents)
				hear(place);
		if (fds[0].revents)
			come(ctx, atoi(argv[4]));
	}
	return tls_CloseServerContext(ctx) < 0;
}
