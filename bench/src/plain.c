/* Plain TCP to a proxy, which speaks TLS to the sink. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link.h"
#include "stream.h"

struct link {
	int fd;
};

const bool link_does_tls = false;

static struct sockaddr_in proxy = { .sin_family = AF_INET };

void link_setup(const struct link_options *o)
{
	proxy.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	proxy.sin_port = htons((uint16_t)o->port);
}

const char *link_version(void)
{
	return "";
}

struct link *link_open(void)
{
	struct link *l = must_alloc(sizeof *l);
	int on = 1;

	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&proxy, sizeof proxy) != 0)
		die("plain: connect: %s", strerror(errno));
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return l;
}

void link_write(struct link *l, const void *data, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t sent = send(l->fd, (const char *)data + at, n - at, MSG_NOSIGNAL);
		if (sent < 0)
			die("plain: send: %s", strerror(errno));
		at += (size_t)sent;
	}
}

size_t link_read(struct link *l, void *to, size_t most)
{
	ssize_t n = recv(l->fd, to, most, 0);

	if (n < 0)
		die("plain: recv: %s", strerror(errno));
	if (n == 0)
		die("plain: recv: the proxy has ended the stream");
	return (size_t)n;
}

void link_close(struct link *l)
{
	close(l->fd);
	free(l);
}
