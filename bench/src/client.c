/*
 * client [-a] [-c CA] [-l PLUGIN] [-r] -p PORT WORK [SIZE [CONNECTIONS [SECONDS]]]
 *
 * Does one kind of work over one kind of link (link.h), which is chosen when the program is built.
 * With -a, each connection of the works "write", "read" and "pingpong" has a process of its own.
 * With -r, the in-process link sets SSL_MODE_RELEASE_BUFFERS.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "link.h"
#include "stream.h"
#include "work.h"

static const struct {
	const char *name;
	void (*run)(const struct work_options *);
} works[] = {
	{ "write", work_write },     { "read", work_read }, { "pingpong", work_pingpong },
	{ "connect", work_connect }, { "idle", work_idle }, { "beside", work_beside },
};

void command(struct link *l, uint64_t operation, uint64_t a, uint64_t b)
{
	struct command c = { operation, a, b };

	link_write(l, &c, sizeof c);
}

void read_all(struct link *l, void *to, size_t n)
{
	for (size_t at = 0; at < n;)
		at += link_read(l, (char *)to + at, n - at);
}

uint64_t answer(struct link *l)
{
	uint64_t value;

	read_all(l, &value, sizeof value);
	return value;
}

int main(int argc, char **argv)
{
	struct link_options l = { 0 };
	struct work_options o = { .connections = 1, .seconds = 1 };
	int c;

	while ((c = getopt(argc, argv, "ac:l:p:r")) != -1) {
		switch (c) {
		case 'a': o.apart = &l; break;
		case 'c': l.ca = optarg; break;
		case 'l': l.path = optarg; break;
		case 'p': l.port = atoi(optarg); break;
		case 'r': l.release = true; break;
		default: die("client: unknown option");
		}
	}
	argc -= optind;
	argv += optind;
	if (argc < 1)
		die("client: no work given");
	if (argc > 1)
		o.size = (size_t)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		o.connections = atoi(argv[2]);
	if (argc > 3)
		o.seconds = atof(argv[3]);
	if (o.size > PIECE_MAX)
		die("client: a piece has at most %d bytes", (int)PIECE_MAX);

	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	if (!o.apart)
		link_setup(&l);
	if (strcmp(argv[0], "version") == 0) {
		puts(link_version());
		return 0;
	}
	for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
		if (strcmp(argv[0], works[i].name) == 0) {
			works[i].run(&o);
			return 0;
		}
	}
	die("client: no such work: %s", argv[0]);
}
