#define _GNU_SOURCE
#include "ring.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	FILE_BYTES = RING_HEADER_BYTES + 2 * RING_BYTES,
	MAPPED_BYTES = RING_HEADER_BYTES + 4 * RING_BYTES,

	/* The places of a ring's words in the header. */
	AT_HEAD = 0,
	AT_WANTS = 4,
	AT_TAIL = 64,
	AT_SLEEPS = 68,
	NEXT_RING = 128,

	/* futex(2); not each C library has <linux/futex.h> */
	FUTEX_WAIT = 0,
	FUTEX_WAKE = 1,
};

/* --- the memory --- */

static bool map_at(char *at, int fd, size_t offset, size_t len)
{
	return mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) != MAP_FAILED;
}

static bool map(struct rings *r)
{
	char *at = mmap(NULL, MAPPED_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t offset = RING_HEADER_BYTES;

	if (at == MAP_FAILED)
		return false;
	r->mem = at;
	if (!map_at(at, r->fd, 0, RING_HEADER_BYTES))
		return false;
	at += RING_HEADER_BYTES;
	for (int ring = 0; ring < 2; ring++, offset += RING_BYTES)
		for (int twice = 0; twice < 2; twice++, at += RING_BYTES)
			if (!map_at(at, r->fd, offset, RING_BYTES))
				return false;
	return madvise(r->mem, MAPPED_BYTES, MADV_DONTFORK) == 0;
}

static struct ring ring_at(char *header, char *data)
{
	return (struct ring){
		.head = (_Atomic uint32_t *)(void *)(header + AT_HEAD),
		.wants = (_Atomic uint32_t *)(void *)(header + AT_WANTS),
		.tail = (_Atomic uint32_t *)(void *)(header + AT_TAIL),
		.sleeps = (_Atomic uint32_t *)(void *)(header + AT_SLEEPS),
		.data = data,
	};
}

bool rings_make(struct rings *r)
{
	*r = (struct rings){ .fd = memfd_create("tlsd-session", MFD_CLOEXEC | MFD_ALLOW_SEALING) };
	if (r->fd < 0)
		return false;
	if (ftruncate(r->fd, FILE_BYTES) < 0 || fcntl(r->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 || !map(r)) {
		rings_free(r);
		return false;
	}
	r->out = ring_at(r->mem, r->mem + RING_HEADER_BYTES);
	r->in = ring_at(r->mem + NEXT_RING, r->mem + RING_HEADER_BYTES + 2 * RING_BYTES);
	return true;
}

void rings_sent(struct rings *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
}

void rings_free(struct rings *r)
{
	rings_sent(r);
	if (r->mem)
		munmap(r->mem, MAPPED_BYTES);
	r->mem = NULL;
}

/* --- futex(2) --- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value, int ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* --- taking out --- */

static const char *place(const struct ring *r)
{
	return r->data + (r->at & (RING_BYTES - 1));
}

bool ring_peek(const struct ring *r, const char **at, size_t *len)
{
	*len = atomic_load(r->head) - r->at;
	*at = place(r);
	return *len <= RING_BYTES;
}

bool ring_has_some(const struct ring *r)
{
	return atomic_load(r->head) != atomic_load(r->tail);
}

static void tell_of_room(struct ring *r)
{
	if (atomic_load(r->wants) && atomic_exchange(r->wants, 0))
		futex_wake(r->wants);
}

void ring_take(struct ring *r, size_t len)
{
	r->at += (uint32_t)len;
	atomic_store(r->tail, r->at);
	if (atomic_load(r->head) - r->at <= RING_BYTES / 2)
		tell_of_room(r);
}

void ring_sleep(struct ring *r, uint32_t sleeps)
{
	atomic_store(r->sleeps, sleeps);
	tell_of_room(r); /* or both would sleep */
}

void ring_awake(struct ring *r)
{
	atomic_store(r->sleeps, AWAKE);
}

void ring_sleep_for_all(struct ring *r)
{
	uint32_t now = SLEEPS_FOR_ANSWERS;

	atomic_compare_exchange_strong(r->sleeps, &now, SLEEPS_FOR_ALL);
}

/* --- putting in --- */

/* More than RING_BYTES if tlsd has written what cannot be. */
static size_t room(const struct ring *r)
{
	return RING_BYTES - (r->at - atomic_load(r->tail));
}

bool ring_has_room(const struct ring *r, size_t len)
{
	return len <= room(r);
}

bool ring_put(struct ring *r, const char *from, size_t len, size_t *done)
{
	size_t n = room(r);

	*done = len < n ? len : n;
	if (n > RING_BYTES)
		return false;
	if (*done > 0)
		memcpy(r->data + (r->at & (RING_BYTES - 1)), from, *done);
	r->at += (uint32_t)*done;
	return true;
}

bool ring_publish(struct ring *r)
{
	atomic_store(r->head, r->at);
	return atomic_load(r->sleeps) != AWAKE && atomic_exchange(r->sleeps, AWAKE) != AWAKE;
}

bool ring_await_room(struct ring *r, int ms)
{
	atomic_store(r->wants, 1);
	if (room(r) == 0)
		futex_wait(r->wants, 1, ms);
	else
		atomic_store(r->wants, 0);
	return room(r) != 0;
}

void ring_give_up(struct ring *r)
{
	atomic_store(r->wants, 0);
	futex_wake(r->wants);
}
