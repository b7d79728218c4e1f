/*
 * low.c - uses the plugin after it has closed its standard streams. None of the plugin's
 * descriptors may get the number 0, 1 or 2.
 *
 *	low PLUGIN.so HOST PORT CA
 *
 * The other end echoes. Exit status: 0 if all went well, else the number of the step that failed.
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
