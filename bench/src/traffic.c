/*
 * Bulk data and round trips on open connections.
 *
 * A warm-up decides the amount of data. It is repeated, each time with twice the amount, until one
 * warm-up takes at least a tenth of the time that the work shall take. The first amount is large,
 * so that a single pause of the machine does not look like a low speed.
 *
 * The time of the work ends when everything has arrived: at the sink's answer that all bytes were
 * right (write), or at the last byte (read, pingpong).
 *
 * A lane is a connection with the thread or process that uses it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"
#include "stream.h"
#include "work.h"

enum { FIRST_BYTES = 4 << 20, FIRST_TRIPS = 256 }; /* of the warm-up, all connections together */

/* Moves a number of units (bytes or round trips) on one connection. */
typedef void move_function(struct link *l, uint8_t *buf, size_t size, uint64_t units);

struct lane {
	struct traffic *t;
	struct link *link;
	uint8_t *buf;
	pthread_t thread;
};

/* The work, shared by all lanes. It is in shared memory, because the lanes may be processes. */
struct traffic {
	move_function *move;
	size_t size;
	int n;
	const struct link_options *apart; /* NULL if the lanes are threads; see work.h */
	struct lane *lanes;
	uint64_t units; /* for each lane; set before the barrier start opens */
	bool over;
	pthread_barrier_t start, end;
};

static void *run_lane(void *arg)
{
	struct lane *lane = arg;
	struct traffic *t = lane->t;

	for (;;) {
		pthread_barrier_wait(&t->start);
		if (t->over)
			return NULL;
		t->move(lane->link, lane->buf, t->size, t->units);
		pthread_barrier_wait(&t->end);
	}
}

static void open_lane(struct traffic *t, struct lane *lane)
{
	*lane = (struct lane){ .t = t, .link = link_open(), .buf = must_alloc(t->size + BLOCK) };
	stream_fill(lane->buf, (t->size + BLOCK - 1) / BLOCK * BLOCK);
}

/* The main function of a lane's process. */
static _Noreturn void be_lane(struct traffic *t)
{
	struct lane lane;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_DFL);
	link_setup(t->apart);
	open_lane(t, &lane);
	pthread_barrier_wait(&t->end); /* tells open_apart that this lane's link is open */
	run_lane(&lane);
	link_close(lane.link);
	_exit(0);
}

static struct traffic *shared; /* for lane_ended */

/* Handles SIGCHLD. Without it, the wait for a lane whose process has failed would never end. */
static void lane_ended(int unused)
{
	int status, before = errno;

	(void)unused;
	while (waitpid(-1, &status, WNOHANG) > 0)
		if (status != 0 || !shared->over)
			_exit(1); /* the process of the lane has printed the reason */
	errno = before;
}

static void open_apart(struct traffic *t)
{
	shared = t;
	signal(SIGCHLD, lane_ended);
	for (int i = 0; i < t->n; i++) {
		pid_t pid = fork();
		if (pid == 0)
			be_lane(t);
		if (pid < 0)
			die("client: process %d of %d: %s", i + 1, t->n, strerror(errno));
	}
	pthread_barrier_wait(&t->end);
}

/* The processes of the lanes exit when over is set. */
static void close_apart(struct traffic *t)
{
	signal(SIGCHLD, SIG_DFL);
	t->over = true;
	pthread_barrier_wait(&t->start);
	for (int status; wait(&status) > 0;)
		if (status != 0)
			_exit(1);
}

static void init_barriers(struct traffic *t)
{
	pthread_barrierattr_t attr;

	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&t->start, &attr, (unsigned)t->n + 1);
	pthread_barrier_init(&t->end, &attr, (unsigned)t->n + 1);
	pthread_barrierattr_destroy(&attr);
}

/* If apart is set, each connection has a process. Otherwise each has a thread, but a single
 * connection is used by the main thread. */
static void open_lanes(struct traffic *t)
{
	pthread_attr_t attr;

	init_barriers(t);
	if (t->apart) {
		open_apart(t);
		return;
	}

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	t->lanes = must_alloc((size_t)t->n * sizeof *t->lanes);
	for (int i = 0; i < t->n; i++) {
		struct lane *lane = &t->lanes[i];
		open_lane(t, lane);
		if (t->n > 1 && pthread_create(&lane->thread, &attr, run_lane, lane) != 0)
			die("client: thread %d of %d cannot be started", i + 1, t->n);
	}
	pthread_attr_destroy(&attr);
}

static void close_lanes(struct traffic *t)
{
	if (t->apart) {
		close_apart(t);
		return;
	}
	t->over = true;
	if (t->n > 1)
		pthread_barrier_wait(&t->start);
	for (int i = 0; i < t->n; i++) {
		if (t->n > 1)
			pthread_join(t->lanes[i].thread, NULL);
		link_close(t->lanes[i].link);
		free(t->lanes[i].buf);
	}
	free(t->lanes);
}

/* Moves the given number of units on each lane. Returns the time that it took, in seconds. */
static double move_all(struct traffic *t, uint64_t units)
{
	double begun = seconds();

	t->units = units;
	if (t->n == 1 && !t->apart) {
		t->move(t->lanes[0].link, t->lanes[0].buf, t->size, units);
	} else {
		pthread_barrier_wait(&t->start);
		pthread_barrier_wait(&t->end);
	}
	return seconds() - begun;
}

/* Does the warm-up and the work. The parameter step is a number of units, and each lane moves a
 * multiple of it. The parameter first is the number of units that all lanes together move in the
 * first warm-up; they may move a little more. */
static void run_traffic(const struct work_options *o, move_function *move, uint64_t step,
	uint64_t first)
{
	struct traffic *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t units;
	double took;

	if (t == MAP_FAILED)
		die("client: mmap: %s", strerror(errno));
	*t = (struct traffic){ .move = move, .size = o->size, .n = o->connections,
		.apart = o->apart };
	units = (first / (uint64_t)t->n / step + 1) * step;
	open_lanes(t);
	while ((took = move_all(t, units)) < o->seconds / 10)
		units *= 2;
	units = (uint64_t)((double)units * o->seconds / took / (double)step + 1) * step;

	measure_start();
	move_all(t, units);
	measure_end((double)units * t->n, "");
	close_lanes(t);
	munmap(t, sizeof *t);
}

static void move_out(struct link *l, uint8_t *buf, size_t size, uint64_t n)
{
	uint64_t right;

	command(l, DISCARD, n, 0);
	for (uint64_t at = 0; at < n; at += size) {
		if (at % BLOCK == 0)
			stream_move(buf, size < BLOCK ? BLOCK : size, at);
		link_write(l, buf + at % BLOCK, size);
	}
	right = answer(l);
	if (right != n)
		die("client: of %llu bytes the first %llu arrived right", (unsigned long long)n,
			(unsigned long long)right);
}

static void move_in(struct link *l, uint8_t *buf, size_t size, uint64_t n)
{
	command(l, SOURCE, n, 0);
	for (uint64_t at = 0; at < n;) {
		size_t got = link_read(l, buf, n - at < size ? (size_t)(n - at) : size);
		if (!stream_check(buf, got, at))
			die("client: wrong bytes at %llu of %llu", (unsigned long long)at,
				(unsigned long long)n);
		at += got;
	}
}

static void move_to_and_fro(struct link *l, uint8_t *buf, size_t size, uint64_t times)
{
	uint8_t *back = must_alloc(size);

	command(l, ECHO, size, times);
	for (uint64_t i = 0; i < times; i++) {
		memcpy(buf, &i, sizeof i);
		link_write(l, buf, size);
		read_all(l, back, size);
		if (memcmp(buf, back, size) != 0)
			die("client: message %llu came back changed", (unsigned long long)i);
	}
	free(back);
}

static void need(bool fits, const char *what)
{
	if (!fits)
		die("client: %s", what);
}

void work_write(const struct work_options *o)
{
	need(o->size > 0 && (o->size % BLOCK == 0 || BLOCK % o->size == 0),
		"a piece must be a multiple of 4096 bytes, or 4096 must be a multiple of it");
	run_traffic(o, move_out, o->size, FIRST_BYTES);
}

void work_read(const struct work_options *o)
{
	need(o->size > 0, "a piece has at least one byte");
	run_traffic(o, move_in, BLOCK, FIRST_BYTES);
}

void work_pingpong(const struct work_options *o)
{
	need(o->size >= sizeof(uint64_t), "a message has at least 8 bytes");
	run_traffic(o, move_to_and_fro, 16, FIRST_TRIPS);
}
