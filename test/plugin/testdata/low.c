/*
 * low.c - a program whose standard streams are closed talks, and they stay closed.
 *
 *	low PLUGIN.so HOST PORT CA
 *
 * The other end echoes. Its exit status says what went wrong, 0 for nothing.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "load.h"

int main(int argc, char **argv)
{
	char data[8];
	int64_t c;

	if (argc != 5 || !load_plugin(argv[1]))
		return 2;
	for (int fd = 0; fd <= 2; fd++)
		close(fd);
	if (*argv[4] && SetCaBundle(argv[4]) != 0)
		return 3;
	c = NewClient(argv[2], atoi(argv[3]));
	if (c < 0 || Handshake(c) != 0)
		return 4;
	if (Write(c, "hello", 5) != 5 || Read(c, data, sizeof data) != 5)
		return 5;
	if (Descriptor(c) <= 2)
		return 6;
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			return 7;
	return 0;
}
