/*
 * owned.c - see owned.h.
 *
 * The entries are in blocks that are never moved. So a signal handler and the child of a fork may
 * read them at any moment. An entry is free if its field `number` is 0. This field is atomic.
 *
 * A thread makes a descriptor, and then its entry. No fork may come between the two: the child
 * would have a copy of the descriptor without an entry, and would not close it. So the thread holds
 * make_mu meanwhile, and a fork takes make_mu first. The thread also blocks signals, because a
 * handler may fork.
 */
#define _POSIX_C_SOURCE 200809L
#include "owned.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system.h"

enum { BLOCK = 64, CHANGING = -1 };

struct owned {
	/* 0: the entry is free. CHANGING: a thread is filling the entry in. Otherwise it is the
	 * descriptor plus 1, and dev and ino do not change. */
	atomic_int number;
	dev_t dev;
	ino_t ino;
};

struct block {
	struct owned entries[BLOCK];
	_Atomic(struct block *) next;
};

static struct block first;
static pthread_mutex_t make_mu = PTHREAD_MUTEX_INITIALIZER;

static sigset_t lock_making(void)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&make_mu);
	return before;
}

static void unlock_making(const sigset_t *before)
{
	pthread_mutex_unlock(&make_mu);
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* Finds a free entry, sets its `number` to CHANGING, and returns the entry. Returns NULL if there
 * is no memory. make_mu is held. */
static struct owned *find_entry(void)
{
	for (struct block *b = &first;; b = atomic_load(&b->next)) {
		for (int i = 0; i < BLOCK; i++) {
			int nothing = 0;
			if (atomic_compare_exchange_strong(&b->entries[i].number, &nothing,
							   CHANGING))
				return &b->entries[i];
		}
		if (!atomic_load(&b->next)) {
			struct block *more = calloc(1, sizeof *more);
			if (!more)
				return NULL;
			atomic_store(&b->next, more);
		}
	}
}

/* Makes an owned descriptor of fd. On failure closes fd, and returns NULL. If fd is -1, returns
 * NULL. make_mu is held. */
static struct owned *take(int fd)
{
	struct owned *o = NULL;
	struct stat st;

	fd = sys_move_up(fd, STDERR_FILENO + 1);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0)
		o = find_entry();
	if (!o) {
		sys_close(fd);
		return NULL;
	}
	o->dev = st.st_dev;
	o->ino = st.st_ino;
	atomic_store(&o->number, fd + 1);
	return o;
}

struct owned *owned_socket(void)
{
	sigset_t before = lock_making();
	struct owned *o = take(sys_socket());

	unlock_making(&before);
	return o;
}

static bool make_two(int (*make)(int fds[2]), struct owned *ends[2])
{
	sigset_t before = lock_making();
	int fds[2];
	bool made = make(fds) == 0;

	ends[0] = ends[1] = NULL;
	if (made)
		ends[0] = take(fds[0]);
	if (ends[0])
		ends[1] = take(fds[1]);
	else if (made)
		sys_close(fds[1]);
	if (ends[0] && !ends[1])
		owned_close(ends[0]);
	unlock_making(&before);
	return ends[1] != NULL;
}

bool owned_socketpair(struct owned *ends[2])
{
	return make_two(sys_socketpair, ends);
}

bool owned_pipe(struct owned *ends[2])
{
	return make_two(sys_pipe, ends);
}

static bool is_same(const struct owned *o, int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_dev == o->dev && st.st_ino == o->ino;
}

int owned_fd(const struct owned *o)
{
	int fd = o ? atomic_load(&o->number) - 1 : -1;

	return fd >= 0 && is_same(o, fd) ? fd : -1;
}

void owned_close(struct owned *o)
{
	int fd = owned_fd(o);

	if (fd >= 0)
		sys_close(fd);
	/* The entry becomes free only after the close. Otherwise a child that is forked between the
	 * two would have the descriptor without an entry, and would not close it. */
	if (o)
		atomic_store(&o->number, 0);
}

void owned_end(void)
{
	struct block *b = atomic_exchange(&first.next, NULL);

	while (b) {
		struct block *next = atomic_load(&b->next);
		free(b);
		b = next;
	}
}

/* --- forks --- */

static void before_fork(void)
{
	pthread_mutex_lock(&make_mu);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&make_mu);
}

static void after_fork_in_child(void)
{
	for (struct block *b = &first; b; b = atomic_load(&b->next))
		for (int i = 0; i < BLOCK; i++)
			if (atomic_load(&b->entries[i].number) != 0)
				owned_close(&b->entries[i]);
	pthread_mutex_unlock(&make_mu);
}

__attribute__((constructor)) static void load(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
