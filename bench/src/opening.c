/* Connections: how fast they come and go, and what they need while they are idle. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "measure.h"
#include "stream.h"
#include "work.h"

enum {
	WARM_UP = 20,   /* connections opened and closed beforehand */
	/* In the output, first= is the median over the first SAMPLE connections, and last= over the
	 * last SAMPLE. If there are fewer than 2 * SAMPLE, each is the median over half of them. */
	SAMPLE = 100,
	/* The sink is asked for its count of marks every 10 ms, at most PATIENCE times. */
	PATIENCE = 500,
};

static void one_connection(uint64_t tag)
{
	struct link *l = link_open();

	command(l, MARK, tag, !link_does_tls);
	if (!link_does_tls && answer(l) != tag)
		die("client: the sink has answered with another mark");
	link_close(l);
}

/* Waits until the sink has counted the wanted number of marks for the tag. */
static void check_marks(uint64_t tag, uint64_t want)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	struct link *l = link_open();
	uint64_t count = 0;

	for (int i = 0; i < PATIENCE && count < want; i++) {
		if (i > 0)
			nanosleep(&pause, NULL);
		command(l, COUNT, tag, 0);
		count = answer(l);
	}
	if (count != want)
		die("client: the writes of only %llu connections arrived; there were %llu",
			(unsigned long long)count, (unsigned long long)want);
	link_close(l);
}

void work_connect(const struct work_options *o)
{
	uint64_t tag = (uint64_t)(seconds() * 1e9), n = 0;
	double begun;

	for (int i = 0; i < WARM_UP; i++)
		one_connection(tag + 1);
	measure_start();
	for (begun = seconds(); seconds() - begun < o->seconds; n++)
		one_connection(tag);
	measure_end((double)n, "");
	check_marks(tag, n);
}

static struct link *open_parked(uint64_t i)
{
	struct link *l = link_open();

	command(l, PARK, i, 0);
	if (answer(l) != i)
		die("client: the sink has not taken the connection");
	return l;
}

/* The connections stay open until the program ends. */
void work_idle(const struct work_options *o)
{
	int n = o->connections, sample = n < 2 * SAMPLE ? n / 2 : SAMPLE;
	double *took = must_alloc((size_t)n * sizeof *took);
	struct link **links = must_alloc((size_t)n * sizeof *links);
	char extra[80];

	if (n < 2)
		die("client: at least 2 idle connections are needed");
	/* touches the pages, so that they do not count as growth of memory */
	for (int i = 0; i < n; i++)
		took[i] = 0, links[i] = NULL;
	for (int i = 0; i < WARM_UP; i++)
		link_close(open_parked((uint64_t)i));

	measure_start();
	for (int i = 0; i < n; i++) {
		double begun = seconds();
		links[i] = open_parked((uint64_t)i);
		took[i] = seconds() - begun;
	}
	snprintf(extra, sizeof extra, " first=%.9f last=%.9f", median(took, sample),
		median(took + n - sample, sample));
	measure_end(n, extra);
	_exit(0);
}
