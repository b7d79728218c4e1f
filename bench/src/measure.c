#include "measure.h"

#include <stdio.h>
#include <unistd.h>

#include "stream.h"

static double started, cpu_started;

static void wait_for_driver(void)
{
	char c;

	do
		if (read(0, &c, 1) != 1)
			_exit(1); /* the driver is gone */
	while (c != '\n');
}

void measure_start(void)
{
	puts("ready");
	fflush(stdout);
	wait_for_driver();
	cpu_started = cpu_seconds();
	started = seconds();
}

void measure_end(double units, const char *extra)
{
	double took = seconds() - started, cpu = cpu_seconds() - cpu_started;

	printf("done units=%.0f seconds=%.9f cpu=%.9f%s\n", units, took, cpu, extra);
	fflush(stdout);
	wait_for_driver();
}
