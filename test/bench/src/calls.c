/*
 * calls PLUGIN first           the first tls_Backend of a fresh process
 * calls PLUGIN loop SECONDS    tls_Backend, again and again
 * calls bare loop SECONDS      64 bytes to and fro over a socketpair to another process
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "functions.h"
#include "measure.h"

enum { MESSAGE = 64, WARM_UP = 200, BETWEEN_LOOKS = 64 };

static __typeof__(&tls_Backend) backend;
static int partner;

static void call_backend(void)
{
	char text[16] = "";

	if (backend(text, sizeof text) != 7 || strcmp(text, "openssl") != 0)
		die("calls: the backend is \"%s\"", text);
}

static void call_partner(void)
{
	static uint64_t number;
	char out[MESSAGE] = "", in[MESSAGE];

	number++;
	memcpy(out, &number, sizeof number);
	if (write(partner, out, sizeof out) != sizeof out || read(partner, in, sizeof in) != sizeof in ||
	    memcmp(out, in, sizeof in) != 0)
		die("calls: the partner has not sent the message back");
}

static void start_partner(void)
{
	int ends[2];
	char m[MESSAGE];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 || (pid = fork()) < 0)
		die("calls: %s", strerror(errno));
	if (pid > 0) {
		close(ends[1]);
		partner = ends[0];
		return;
	}
	close(ends[0]);
	while (read(ends[1], m, sizeof m) == sizeof m && write(ends[1], m, sizeof m) == sizeof m)
		;
	_exit(0);
}

static void loop(void (*call)(void), double length)
{
	double until, n = 0;

	for (int i = 0; i < WARM_UP; i++)
		call();
	measure_start();
	for (until = seconds() + length; seconds() < until; n += BETWEEN_LOOKS)
		for (int i = 0; i < BETWEEN_LOOKS; i++)
			call();
	measure_end(n, "");
}

int main(int argc, char **argv)
{
	if (argc < 3)
		die("usage: calls PLUGIN|bare first|loop [SECONDS]");
	if (strcmp(argv[1], "bare") == 0)
		start_partner();
	else
		plugin_find(plugin_open(argv[1]), "tls_Backend", &backend);

	if (strcmp(argv[2], "loop") == 0 && argc == 4) {
		loop(backend ? call_backend : call_partner, atof(argv[3]));
	} else if (strcmp(argv[2], "first") == 0 && backend) {
		measure_start();
		call_backend();
		measure_end(1, "");
	} else {
		die("calls: nothing to do");
	}
	return 0;
}
