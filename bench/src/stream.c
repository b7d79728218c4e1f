#include "stream.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint8_t noise[BLOCK];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Makes the noise with xorshift64. It is good enough, because it does not repeat within a block. */
static void make_noise(void)
{
	uint64_t x = 88172645463325252u;

	for (size_t i = 0; i < BLOCK; i += sizeof x) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(noise + i, &x, sizeof x);
	}
}

void stream_fill(uint8_t *buf, size_t n)
{
	pthread_once(&once, make_noise);
	for (size_t i = 0; i < n; i += BLOCK)
		memcpy(buf + i, noise, BLOCK);
	stream_move(buf, n, 0);
}

void stream_move(uint8_t *buf, size_t n, uint64_t offset)
{
	for (size_t i = 0; i < n; i += BLOCK) {
		uint64_t number = (offset + i) / BLOCK;
		memcpy(buf + i, &number, sizeof number);
	}
}

bool stream_check(const uint8_t *buf, size_t n, uint64_t offset)
{
	pthread_once(&once, make_noise);
	while (n > 0) {
		size_t at = offset % BLOCK, len = BLOCK - at;
		uint64_t number = offset / BLOCK;
		const uint8_t *want = noise + at;

		if (at < sizeof number) {
			want = (const uint8_t *)&number + at;
			len = sizeof number - at;
		}
		if (len > n)
			len = n;
		if (memcmp(buf, want, len) != 0)
			return false;
		buf += len;
		n -= len;
		offset += len;
	}
	return true;
}

static double clock_seconds(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double seconds(void)
{
	return clock_seconds(CLOCK_MONOTONIC);
}

double cpu_seconds(void)
{
	return clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof *v, by_value);
	return v[n / 2];
}

void *must_alloc(size_t n)
{
	void *p = malloc(n);

	if (!p)
		die("out of memory for %zu bytes", n);
	return p;
}

void raise_file_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(1);
}
