/*
 * sink CERT KEY - the peer of all contestants
 *
 * It is a TLS 1.3 server with a thread for each connection, and carries out the commands of
 * stream.h. It prints two ports of 127.0.0.1, listens on them until its standard input ends, and
 * then exits. The second port sends session tickets, as servers do by default. The first port sends
 * none, so no client can resume a session there. And if a client closes at once, no unread ticket
 * makes the kernel reset the connection.
 *
 * The sink accepts only one cipher suite, because some proxies would choose a slower one.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "stream.h"

struct peer {
	SSL *ssl;
	int fd;
	uint8_t *buf; /* NULL until a command needs it */
	size_t room;  /* the size of buf */
};

struct listener {
	int fd;
	SSL_CTX *ctx;
};

enum { TAGS = 1 << 16 };

/* Counts the MARK commands with each tag (see stream.h). An entry whose tag is 0 is free. */
static struct {
	pthread_mutex_t mu; /* guards entries */
	struct { uint64_t tag, count; } entries[TAGS];
} marks = { .mu = PTHREAD_MUTEX_INITIALIZER };

static int parked; /* an epoll descriptor for the parked connections; see guard */

static void drop(struct peer *p)
{
	SSL_free(p->ssl);
	close(p->fd);
	free(p->buf);
	free(p);
}

/* --- whole pieces over TLS; false: the client is gone --- */

static bool get(struct peer *p, void *to, size_t n)
{
	size_t got;

	for (size_t at = 0; at < n; at += got)
		if (SSL_read_ex(p->ssl, (char *)to + at, n - at, &got) != 1)
			return false;
	return true;
}

static bool put(struct peer *p, const void *from, size_t n)
{
	size_t sent;

	return n == 0 || SSL_write_ex(p->ssl, from, n, &sent) == 1;
}

static bool answer(struct peer *p, uint64_t value)
{
	return put(p, &value, sizeof value);
}

static uint8_t *buffer(struct peer *p, size_t n)
{
	if (p->room < n) {
		free(p->buf);
		p->buf = must_alloc(n);
		p->room = n;
	}
	return p->buf;
}

/* --- the commands --- */

static bool do_discard(struct peer *p, uint64_t n)
{
	uint8_t *buf = buffer(p, TAKE_MOST);
	uint64_t right = 0;
	bool good = true;
	size_t got;

	for (uint64_t at = 0; at < n; at += got) {
		size_t most = n - at < TAKE_MOST ? (size_t)(n - at) : TAKE_MOST;
		if (SSL_read_ex(p->ssl, buf, most, &got) != 1)
			return false;
		good = good && stream_check(buf, got, at);
		if (good)
			right += got;
	}
	return answer(p, right);
}

static bool do_source(struct peer *p, uint64_t n)
{
	uint8_t *buf = buffer(p, SEND_PIECE);

	stream_fill(buf, SEND_PIECE);
	for (uint64_t at = 0; at < n; at += SEND_PIECE) {
		size_t len = n - at < SEND_PIECE ? (size_t)(n - at) : SEND_PIECE;
		stream_move(buf, SEND_PIECE, at);
		if (!put(p, buf, len))
			return false;
	}
	return true;
}

static bool do_echo(struct peer *p, uint64_t size, uint64_t times)
{
	uint8_t *buf;

	if (size > PIECE_MAX)
		return false;
	buf = buffer(p, (size_t)size);
	for (; times > 0; times--)
		if (!get(p, buf, (size_t)size) || !put(p, buf, (size_t)size))
			return false;
	return true;
}

/* Reads slowly, so that the client's writes block. */
static bool do_sip(struct peer *p)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	uint8_t *buf = buffer(p, SIP_PIECE);
	size_t got;

	while (SSL_read_ex(p->ssl, buf, SIP_PIECE, &got) == 1)
		nanosleep(&pause, NULL);
	return false;
}

/* Adds to the tag's count, and returns the new count. */
static uint64_t mark(uint64_t tag, uint64_t add)
{
	uint64_t count, i = tag % TAGS;

	pthread_mutex_lock(&marks.mu);
	while (marks.entries[i].tag != tag && marks.entries[i].tag != 0)
		i = (i + 1) % TAGS;
	marks.entries[i].tag = tag;
	count = marks.entries[i].count += add;
	pthread_mutex_unlock(&marks.mu);
	return count;
}

static bool do_park(struct peer *p, uint64_t a)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = p };

	free(p->buf);
	p->buf = NULL;
	p->room = 0;
	if (!answer(p, a))
		return false;
	if (epoll_ctl(parked, EPOLL_CTL_ADD, p->fd, &e) != 0)
		die("epoll_ctl: %s", strerror(errno));
	return true;
}

static void *serve(void *arg)
{
	struct peer *p = arg;
	struct command c;
	bool going = SSL_accept(p->ssl) == 1;

	while (going && get(p, &c, sizeof c)) {
		switch ((enum operation)c.operation) {
		case DISCARD: going = do_discard(p, c.a); break;
		case SOURCE: going = do_source(p, c.a); break;
		case ECHO: going = do_echo(p, c.a, c.b); break;
		case MARK: mark(c.a, 1); going = c.b == 0 || answer(p, c.a); break;
		case COUNT: going = answer(p, mark(c.a, 0)); break;
		case SIP: going = do_sip(p); break;
		case PARK:
			if (do_park(p, c.a)) {
				ERR_clear_error();
				return NULL; /* from now on guard owns p */
			}
			going = false;
			break;
		default: going = false;
		}
	}
	if (going)
		SSL_shutdown(p->ssl);
	ERR_clear_error();
	drop(p);
	return NULL;
}

/* Drops parked connections when their clients close them. */
static void *guard(void *unused)
{
	struct epoll_event events[64];

	for (;;) {
		int n = epoll_wait(parked, events, 64, -1);
		for (int i = 0; i < n; i++)
			drop(events[i].data.ptr);
	}
	return unused;
}

/* --- listening --- */

static void start(pthread_t *t, void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(t, &attr, run, arg);
	pthread_attr_destroy(&attr);
	if (err)
		die("pthread_create: %s", strerror(err));
}

static void *accept_all(void *arg)
{
	struct listener *l = arg;
	int on = 1;
	pthread_t t;

	for (;;) {
		int fd = accept(l->fd, NULL, NULL);
		struct peer *p;

		if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
			continue;
		if (fd < 0)
			die("accept: %s", strerror(errno));
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		p = must_alloc(sizeof *p);
		*p = (struct peer){ .fd = fd, .ssl = SSL_new(l->ctx) };
		if (!p->ssl || SSL_set_fd(p->ssl, fd) != 1)
			die("SSL_new: no memory");
		start(&t, serve, p);
	}
	return NULL;
}

static int listen_on(struct listener *l, const char *cert, const char *key, bool tickets)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	pthread_t t;

	l->ctx = SSL_CTX_new(TLS_server_method());
	if (!l->ctx || SSL_CTX_set_min_proto_version(l->ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(l->ctx, "TLS_AES_256_GCM_SHA384") != 1 ||
	    SSL_CTX_use_certificate_chain_file(l->ctx, cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(l->ctx, key, SSL_FILETYPE_PEM) != 1) {
		ERR_print_errors_fp(stderr);
		die("sink: no context");
	}
	if (!tickets)
		SSL_CTX_set_num_tickets(l->ctx, 0);
	SSL_CTX_set_read_ahead(l->ctx, 1); /* one read(2) a record: the sink must be fast */

	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&a, sizeof a) != 0 ||
		listen(l->fd, 4096) != 0 ||
	    getsockname(l->fd, (struct sockaddr *)&a, &len) != 0)
		die("sink: listen: %s", strerror(errno));
	start(&t, accept_all, l);
	return ntohs(a.sin_port);
}

int main(int argc, char **argv)
{
	struct listener plain, tickets;
	pthread_t t;
	int ports[2];
	char c;

	if (argc != 3)
		die("usage: sink CERT KEY");
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	parked = epoll_create1(EPOLL_CLOEXEC);
	if (parked < 0)
		die("epoll_create1: %s", strerror(errno));
	start(&t, guard, NULL);
	ports[0] = listen_on(&plain, argv[1], argv[2], false);
	ports[1] = listen_on(&tickets, argv[1], argv[2], true);
	printf("%d %d\n", ports[0], ports[1]);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	_exit(0);
}
