#define _POSIX_C_SOURCE 200809L
#include "bell.h"

void bell_init(struct bell *b)
{
	*b = (struct bell){ .newest = -1 };
	pthread_mutex_init(&b->mu, NULL);
}

static void ring(struct bell_pipe *p)
{
	owned_close(atomic_exchange(&p->write_end, NULL));
}

void bell_ring(struct bell *b)
{
	int number = atomic_load(&b->newest);

	if (number >= 0)
		ring(&b->pipes[number]);
}

void bell_destroy(struct bell *b)
{
	for (int i = 0; i < BELL_PIPES; i++) {
		ring(&b->pipes[i]);
		owned_close(b->pipes[i].read_end);
	}
	pthread_mutex_destroy(&b->mu);
}

/* The caller must hold mu. Makes a new pipe, and returns its index; -1 if that fails. */
static int new_pipe(struct bell *b)
{
	struct owned *ends[2];

	for (int i = 0; i < BELL_PIPES; i++) {
		struct bell_pipe *p = &b->pipes[i];
		if (p->users > 0)
			continue;
		ring(p);
		owned_close(p->read_end);
		p->read_end = NULL;
		if (!owned_pipe(ends))
			return -1;
		p->read_end = ends[0];
		atomic_store(&p->write_end, ends[1]);
		atomic_store(&b->newest, i);
		return i;
	}
	return -1;
}

int bell_listen(struct bell *b, int *fd)
{
	int number;

	pthread_mutex_lock(&b->mu);
	number = atomic_load(&b->newest);
	*fd = -1;
	if (number >= 0 && atomic_load(&b->pipes[number].write_end))
		*fd = owned_fd(b->pipes[number].read_end);
	if (*fd < 0) {
		number = new_pipe(b);
		*fd = number >= 0 ? owned_fd(b->pipes[number].read_end) : -1;
	}
	if (number >= 0)
		b->pipes[number].users++;
	pthread_mutex_unlock(&b->mu);
	return number;
}

void bell_leave(struct bell *b, int number, bool rung)
{
	struct bell_pipe *p;

	if (number < 0)
		return;
	p = &b->pipes[number];
	pthread_mutex_lock(&b->mu);
	if (rung) /* bell_ring or the host has closed an end: nobody can use the pipe again */
		ring(p);
	if (--p->users == 0 && !atomic_load(&p->write_end)) {
		owned_close(p->read_end);
		p->read_end = NULL;
	}
	pthread_mutex_unlock(&b->mu);
}
