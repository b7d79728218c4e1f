/*
 * sessions SOCKET N
 *
 * Opens N sessions of tlsd, one after the other, by connecting to tlsd's socket. In each session it
 * makes one call, and waits for the answer. The sessions stay open until the program ends.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "measure.h"
#include "stream.h"

/* In the output, first= is the median over the first SAMPLE sessions, and last= over the last. */
enum { SAMPLE = 20 };

static const char call[] =
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tls.Backend\",\"params\":[]}\n";
static const char want[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"openssl\"}\n";

static void open_session(const struct sockaddr_un *a)
{
	char got[200];
	size_t have = 0;
	ssize_t n;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)a, sizeof *a) != 0)
		die("sessions: connect: %s", strerror(errno));
	if (write(fd, call, sizeof call - 1) != (ssize_t)sizeof call - 1)
		die("sessions: write: %s", strerror(errno));
	do {
		n = read(fd, got + have, sizeof got - 1 - have);
		if (n <= 0)
			die("sessions: no answer: %s", n < 0 ? strerror(errno) : "end of file");
		have += (size_t)n;
		got[have] = 0;
	} while (!strchr(got, '\n'));
	if (strcmp(got, want) != 0)
		die("sessions: the answer is %s", got);
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	double *took, begun;
	int n, sample;
	char extra[80];

	if (argc != 3 || (n = atoi(argv[2])) < 1 || strlen(argv[1]) >= sizeof a.sun_path)
		die("usage: sessions SOCKET N");
	strcpy(a.sun_path, argv[1]);
	took = must_alloc((size_t)n * sizeof *took);
	raise_file_limit();
	sample = n < SAMPLE ? n : SAMPLE;
	measure_start();
	for (int i = 0; i < n; i++) {
		begun = seconds();
		open_session(&a);
		took[i] = seconds() - begun;
	}
	snprintf(extra, sizeof extra, " first=%.9f last=%.9f", median(took, sample),
		median(took + n - sample, sample));
	measure_end(n, extra);
	return 0;
}
