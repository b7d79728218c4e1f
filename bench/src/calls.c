/*
 * calls PLUGIN first           the first tls_Backend of a fresh process
 * calls PLUGIN loop SECONDS    tls_Backend, again and again
 */
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "measure.h"

enum {
	WARM_UP = 200,
	BETWEEN_LOOKS = 64, /* calls between two looks at the clock */
};

static __typeof__(&tls_Backend) backend;

static void call_backend(void)
{
	char text[16] = "";

	if (backend(text, sizeof text) != 7 || strcmp(text, "openssl") != 0)
		die("calls: the backend is \"%s\"", text);
}

static void loop(double length)
{
	double until, n = 0;

	for (int i = 0; i < WARM_UP; i++)
		call_backend();
	measure_start();
	for (until = seconds() + length; seconds() < until; n += BETWEEN_LOOKS)
		for (int i = 0; i < BETWEEN_LOOKS; i++)
			call_backend();
	measure_end(n, "");
}

int main(int argc, char **argv)
{
	if (argc < 3)
		die("usage: calls PLUGIN first|loop [SECONDS]");
	plugin_find(plugin_open(argv[1]), "tls_Backend", &backend);
	if (strcmp(argv[2], "loop") == 0 && argc == 4) {
		loop(atof(argv[3]));
	} else if (strcmp(argv[2], "first") == 0) {
		measure_start();
		call_backend();
		measure_end(1, "");
	} else {
		die("calls: nothing to do");
	}
	return 0;
}
