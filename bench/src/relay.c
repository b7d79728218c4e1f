/*
 * relay [-c CA] [-l RELAY] -p PORT
 *
 * The relay does what the frames on descriptor 3 ask for (hop.h). It reads and writes the data over
 * a link to the sink (link.h). Each build of the relay has one kind of link. The relay has one
 * connection, and one thread, which blocks.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hop.h"
#include "link.h"
#include "stream.h"

static char ahead[HOP_MOST];
static size_t at, have;

/* If all bytes of the array `ahead` were taken, fill reads new ones into it. It returns false at
 * the end of the frames. */
static bool fill(void)
{
	ssize_t got;

	if (at < have)
		return true;
	at = have = 0;
	got = read(HOP_SOCKET, ahead, sizeof ahead);
	if (got > 0)
		have = (size_t)got;
	return got > 0;
}

static bool take_frame(struct hop_frame *f)
{
	for (size_t n = 0, some; n < sizeof *f; n += some, at += some) {
		if (!fill())
			return false;
		some = have - at < sizeof *f - n ? have - at : sizeof *f - n;
		memcpy((char *)f + n, ahead + at, some);
	}
	return true;
}

static void pass_on(struct link *l, size_t n)
{
	for (size_t some; n > 0; n -= some, at += some) {
		if (!fill())
			die("relay: cut short");
		some = have - at < n ? have - at : n;
		link_write(l, ahead + at, some);
	}
}

static void give_back(struct link *l, size_t most)
{
	static char data[HOP_MOST];
	uint32_t n = (uint32_t)link_read(l, data, most < sizeof data ? most : sizeof data);
	struct iovec v[2] = { { &n, sizeof n }, { data, n } };
	ssize_t sent = writev(HOP_SOCKET, v, 2);

	if (sent < (ssize_t)sizeof n)
		die("relay: writev: %s", strerror(errno));
	for (size_t done = (size_t)sent - sizeof n; done < n; done += (size_t)sent)
		if ((sent = write(HOP_SOCKET, data + done, n - done)) <= 0)
			die("relay: write: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	struct link_options o = { 0 };
	struct hop_frame f;
	struct link *l;
	int c;

	while ((c = getopt(argc, argv, "c:l:p:")) != -1) {
		switch (c) {
		case 'c': o.ca = optarg; break;
		case 'l': o.path = optarg; break;
		case 'p': o.port = atoi(optarg); break;
		default: die("relay: unknown option");
		}
	}
	signal(SIGPIPE, SIG_IGN);
	link_setup(&o);
	l = link_open();
	while (take_frame(&f)) {
		if (f.operation == HOP_WRITE)
			pass_on(l, f.n);
		else
			give_back(l, f.n);
	}
	link_close(l);
	return 0;
}
