/*
 * Round trips on one connection, while a writer writes on another connection to a slow peer.
 *
 * The writer is a thread of the same program, so both connections are in one session of tlsd. The
 * writer's peer takes 16 KiB every 2 ms, so the writer waits nearly all of the time. The results
 * are the median and the 99th percentile of the round trips' times. They show whether one
 * connection waits for the other.
 *
 * Both connections end with the program. The rest of the writer's data is dropped.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"
#include "stream.h"
#include "work.h"

enum {
	PIECE = 64 << 10,      /* bytes in one write of the writer */
	MOST_TRIPS = 1 << 20,  /* times are stored for so many round trips */
	LEAST_STUCK = 4 << 20, /* bytes that fill all buffers on the way to the slow peer */
};

struct writer {
	struct link *link;
	pthread_mutex_t mu; /* guards written */
	pthread_cond_t more;
	uint64_t written;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;
	uint8_t *piece = must_alloc(PIECE);

	memset(piece, 1, PIECE);
	for (;;) {
		link_write(w->link, piece, PIECE);
		pthread_mutex_lock(&w->mu);
		w->written += PIECE;
		pthread_cond_signal(&w->more);
		pthread_mutex_unlock(&w->mu);
	}
	return NULL;
}

static void start_writer(struct writer *w)
{
	pthread_t thread;

	w->link = link_open();
	command(w->link, SIP, 0, 0);
	if (pthread_create(&thread, NULL, write_on, w) != 0)
		die("client: the writer cannot be started");
	pthread_mutex_lock(&w->mu);
	while (w->written < LEAST_STUCK)
		pthread_cond_wait(&w->more, &w->mu);
	pthread_mutex_unlock(&w->mu);
}

static double one_trip(struct link *l, uint8_t *out, uint8_t *back, size_t size, uint64_t number)
{
	double begun = seconds();

	memcpy(out, &number, sizeof number);
	link_write(l, out, size);
	read_all(l, back, size);
	if (memcmp(out, back, size) != 0)
		die("client: message %llu came back changed", (unsigned long long)number);
	return seconds() - begun;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void work_beside(const struct work_options *o)
{
	struct writer w = { .mu = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };
	struct link *fast = link_open();
	uint8_t *out = must_alloc(o->size), *back = must_alloc(o->size);
	double *took = must_alloc(MOST_TRIPS * sizeof *took), begun;
	char extra[80];
	int n = 0;

	if (o->size < sizeof(uint64_t))
		die("client: a message has at least 8 bytes");
	memset(out, 2, o->size);
	command(fast, ECHO, o->size, UINT64_MAX);
	start_writer(&w);
	for (begun = seconds(); seconds() - begun < o->seconds / 10; n++)
		one_trip(fast, out, back, o->size, (uint64_t)n);

	measure_start();
	n = 0;
	for (begun = seconds(); n < MOST_TRIPS && seconds() - begun < o->seconds; n++)
		took[n] = one_trip(fast, out, back, o->size, (uint64_t)n);
	qsort(took, (size_t)n, sizeof *took, compare);
	snprintf(extra, sizeof extra, " p50=%.9f p99=%.9f", took[n / 2], took[n - 1 - n / 100]);
	measure_end(n, extra);
	_exit(0);
}
