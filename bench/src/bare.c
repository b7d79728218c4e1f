/*
 * bare CARRIER pingpong SIZE SECONDS [PARTNER ARGUMENT…]  messages to and fro
 * bare CARRIER write SIZE SECONDS [PARTNER ARGUMENT…]     pieces to the partner, which counts bytes
 * bare memory write SIZE SECONDS                          pieces copied within this process
 * bare check write SIZE SECONDS                           pieces made and checked
 *
 * Measures a connection between two processes, without TLS and without a protocol. CARRIER is unix
 * (a socketpair) or tcp (loopback). By default the partner is a child of this program that blocks
 * in read(2). PARTNER names another program, which gets the socket as its standard input.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"
#include "stream.h"

enum {
	WARM_UP = 200,
	BETWEEN_LOOKS = 64,   /* round trips between two looks at the clock */
	AT_ONCE = 128 * 1024, /* the partner's largest read of pieces */
};

static int partner = -1;
static bool checking;
static size_t size;
static char *out, *in;

static void tcp_pair(int ends[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int on = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l < 0 || ends[0] < 0 || bind(l, (struct sockaddr *)&a, sizeof a) != 0 ||
		listen(l, 1) != 0 ||
	    getsockname(l, (struct sockaddr *)&a, &len) != 0 ||
	    connect(ends[0], (struct sockaddr *)&a, sizeof a) != 0 ||
	    (ends[1] = accept(l, NULL, NULL)) < 0)
		die("bare: a TCP connection: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	close(l);
}

static void send_all(int fd, const char *p, size_t n)
{
	for (ssize_t sent; n > 0; p += sent, n -= (size_t)sent)
		if ((sent = write(fd, p, n)) <= 0)
			die("bare: write: %s", strerror(errno));
}

/* Reads n bytes. Returns false if the stream ends before the last of them. */
static bool take_all(int fd, char *p, size_t n)
{
	for (ssize_t got; n > 0; p += got, n -= (size_t)got)
		if ((got = read(fd, p, n)) <= 0)
			return false;
	return true;
}

/* Sends each message back (pingpong), or counts the bytes until the stream ends, and then sends
 * their number (write). */
static _Noreturn void be_partner(int fd, bool pingpong)
{
	size_t most = size < AT_ONCE ? size : AT_ONCE;
	char *p = must_alloc(size > most ? size : most);
	uint64_t all = 0;
	ssize_t got;

	while (pingpong && take_all(fd, p, size))
		send_all(fd, p, size);
	while (!pingpong && (got = read(fd, p, most)) > 0)
		all += (uint64_t)got;
	if (!pingpong)
		send_all(fd, (char *)&all, sizeof all);
	_exit(0);
}

static void start_partner(const char *carrier, bool pingpong, char **program)
{
	int ends[2];
	pid_t pid;

	if (strcmp(carrier, "tcp") == 0)
		tcp_pair(ends);
	else if (strcmp(carrier, "unix") != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		die("bare: cannot connect by %s: %s", carrier, strerror(errno));
	if ((pid = fork()) < 0)
		die("bare: fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		if (!program[0])
			be_partner(ends[1], pingpong);
		dup2(ends[1], 0);
		execv(program[0], program);
		die("bare: %s: %s", program[0], strerror(errno));
	}
	close(ends[1]);
	partner = ends[0];
}

static void trip(void)
{
	static uint64_t number;

	number++;
	memcpy(out, &number, sizeof number);
	send_all(partner, out, size);
	if (!take_all(partner, in, size) || memcmp(out, in, size) != 0)
		die("bare: the partner has not sent the message back");
}

static void piece(void)
{
	static uint64_t at;

	if (checking) {
		stream_move((uint8_t *)out, size, at);
		if (!stream_check((uint8_t *)out, size, at))
			die("bare: wrong bytes");
		at += size;
		return;
	}
	if (partner >= 0) {
		send_all(partner, out, size);
		return;
	}
	memcpy(in, out, size);
	__asm__ volatile("" : : "r"(in) : "memory"); /* keeps the compiler from removing the copy */
}

int main(int argc, char **argv)
{
	double length, until, n = 0;
	uint64_t before = 0, all;
	bool pingpong;

	if (argc < 5)
		die("usage: bare unix|tcp|memory|check pingpong|write SIZE SECONDS "
		    "[PARTNER ARGUMENT...]");
	pingpong = strcmp(argv[2], "pingpong") == 0;
	size = strtoul(argv[3], NULL, 10);
	length = atof(argv[4]);
	if (size < sizeof(uint64_t) || size > PIECE_MAX)
		die("bare: a message has 8 bytes to 16 MiB");
	out = must_alloc(size);
	in = must_alloc(size);
	memset(out, 'x', size);
	memset(in, 'y', size);
	checking = strcmp(argv[1], "check") == 0;
	if (checking && size % BLOCK != 0)
		die("bare: with check, SIZE must be a multiple of 4096");
	if (checking)
		stream_fill((uint8_t *)out, size);
	else if (strcmp(argv[1], "memory") != 0)
		start_partner(argv[1], pingpong, argv + 5);

	for (int i = 0; i < WARM_UP; i++, before += size)
		(pingpong ? trip : piece)();
	measure_start();
	for (until = seconds() + length; seconds() < until; n += pingpong ? BETWEEN_LOOKS : 1)
		for (int i = 0; i < (pingpong ? BETWEEN_LOOKS : 1); i++)
			(pingpong ? trip : piece)();
	if (!pingpong && partner >= 0 &&
	    (shutdown(partner, SHUT_WR) != 0 || !take_all(partner, (char *)&all, sizeof all) ||
	    all != before + (uint64_t)n * size))
		die("bare: not all bytes have arrived");
	measure_end(pingpong ? n : n * (double)size, "");
	return 0;
}
