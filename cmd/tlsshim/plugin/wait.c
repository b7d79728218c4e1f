#define _POSIX_C_SOURCE 200809L
#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

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

/* How long poll(2) may sleep, in milliseconds. If no_bell is true, there is no bell to poll. */
static int sleep_ms(const struct wait *w, bool no_bell)
{
	int64_t left = w->deadline ? w->deadline - now_ms() : -1;

	if (w->deadline && left < 0)
		left = 0;
	if ((no_bell || w->tick) && (left < 0 || left > TICK_MS))
		left = TICK_MS;
	return left < INT_MAX ? (int)left : INT_MAX;
}

enum waited wait_for(int fd, short events, struct wait *w)
{
	struct pollfd p[2] = { { .fd = fd, .events = events } };

	return wait_for_any(p, 1, w);
}

enum waited wait_for_any(struct pollfd *fds, size_t n, struct wait *w)
{
	struct pollfd *bell = &fds[n];

	for (;;) {
		int which, ready = 0, error;

		*bell = (struct pollfd){ .events = POLLIN };
		which = bell_listen(w->bell, &bell->fd);
		if (!wait_ended(w))
			ready = poll(fds, (nfds_t)n + 1, sleep_ms(w, bell->fd < 0));
		error = errno;
		bell_leave(w->bell, which, ready > 0 && bell->revents);
		if (w->ended)
			return ENDED;
		if (ready > (bell->revents != 0))
			return READY;
		if (ready < 0 && error != EINTR) {
			errno = error;
			return FAILED;
		}
		if (w->deadline && now_ms() >= w->deadline)
			return LATE;
	}
}
