/*
 * A link through a relay (relay.c). Client and relay exchange raw frames (hop.h) over a socketpair,
 * with blocking calls. -l names the relay's program. After a comma it can name the program of a
 * second relay, which runs between the first relay and the sink.
 */
#include "hop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "link.h"
#include "stream.h"

struct link {
	int fd;
	pid_t relay;
};

const bool link_does_tls = false;

static char *arguments[8]; /* of the relay */

void link_setup(const struct link_options *o)
{
	static char port[12], *path, *rest;
	int n = 0;

	if (!o->path || !o->ca || !(path = strdup(o->path)))
		die("hop: -l RELAY and -c CA are needed");
	rest = strchr(path, ',');
	if (rest)
		*rest++ = 0;
	snprintf(port, sizeof port, "%d", o->port);
	arguments[n++] = path;
	arguments[n++] = "-c";
	arguments[n++] = strdup(o->ca);
	arguments[n++] = "-p";
	arguments[n++] = port;
	if (rest) {
		arguments[n++] = "-l";
		arguments[n++] = rest;
	}
}

const char *link_version(void)
{
	return "";
}

struct link *link_open(void)
{
	struct link *l = must_alloc(sizeof *l);
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 ||
		(l->relay = fork()) < 0)
		die("hop: %s", strerror(errno));
	if (l->relay == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ends[1] == HOP_SOCKET ? 0 : dup2(ends[1], HOP_SOCKET) < 0)
			die("hop: dup2: %s", strerror(errno));
		execv(arguments[0], arguments);
		die("hop: %s: %s", arguments[0], strerror(errno));
	}
	close(ends[1]);
	l->fd = ends[0];
	return l;
}

/* Sends head and then data, in one call if the socket has room. */
static void send_both(int fd, const void *head, size_t head_len, const void *data, size_t n)
{
	struct iovec v[2] = { { (void *)head, head_len }, { (void *)data, n } };
	ssize_t sent = writev(fd, v, 2);

	if (sent < (ssize_t)head_len)
		die("hop: writev: %s", strerror(errno));
	for (size_t at = (size_t)sent - head_len; at < n; at += (size_t)sent)
		if ((sent = write(fd, (const char *)data + at, n - at)) <= 0)
			die("hop: write: %s", strerror(errno));
}

void link_write(struct link *l, const void *data, size_t n)
{
	struct hop_frame f = { HOP_WRITE, (uint32_t)n };

	send_both(l->fd, &f, sizeof f, data, n);
}

size_t link_read(struct link *l, void *to, size_t most)
{
	struct hop_frame f = { HOP_READ, (uint32_t)most };
	uint32_t n = 0;
	struct iovec v[2] = { { &n, sizeof n }, { to, most } };
	ssize_t got;

	send_both(l->fd, &f, sizeof f, NULL, 0);
	if ((got = readv(l->fd, v, 2)) < (ssize_t)sizeof n || n == 0)
		die("hop: the relay has ended");
	for (size_t at = (size_t)got - sizeof n; at < n; at += (size_t)got)
		if ((got = read(l->fd, (char *)to + at, n - at)) <= 0)
			die("hop: the relay has ended");
	return n;
}

void link_close(struct link *l)
{
	int status;

	shutdown(l->fd, SHUT_WR);
	if (waitpid(l->relay, &status, 0) < 0 || status != 0)
		die("hop: the relay has failed");
	close(l->fd);
	free(l);
}
