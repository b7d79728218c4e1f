#define _GNU_SOURCE
#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool wait_ended(struct wait *w)
{
	if (!w->ended)
		w->look(w);
	return w->ended;
}

enum waited wait_for(int fd, short events, struct wait *w)
{
	while (!w->ended) {
		struct pollfd p[2] = {
			{ .fd = fd, .events = events },
			{ .fd = w->bell, .events = POLLIN },
		};
		int64_t left = w->deadline ? w->deadline - now_ms() : -1;
		uint64_t rung;
		int n;

		if (w->deadline && left <= 0)
			return LATE;
		if (w->tick && (left < 0 || left > TICK_MS))
			left = TICK_MS;
		n = poll(p, 2, left < INT_MAX ? (int)left : INT_MAX);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return FAILED;
		}
		if (p[1].revents && read(w->bell, &rung, sizeof rung) < 0 && errno != EAGAIN && errno != EINTR)
			return FAILED;
		if (p[1].revents || (n == 0 && w->tick)) {
			w->ready = false;
			w->look(w);
			if (w->ready)
				return READY;
		} else if (p[0].revents) {
			return READY;
		}
	}
	return ENDED;
}
