/*
 * ring.h - memory that is shared with tlsd, in which messages lie instead of
 * going over the socket. proto.md, section "Shared memory", has its layout.
 *
 * It has two rings, one for each direction, with one who puts in and one who
 * takes out. Here one thread at a time may take out, and one may put in. tlsd
 * is not trusted: where we are in a ring we remember ourselves, and what is taken
 * out is copied before it is looked at.
 *
 * Each ring is mapped twice, one behind the other, so that what goes over its end
 * is in one piece. A child of a fork does not have the mapping.
 */
#ifndef TLSPLUGIN_RING_H
#define TLSPLUGIN_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	RING_HEADER_BYTES = 64 * 1024,
	RING_BYTES = 256 * 1024, /* one direction; a power of two */
};

/* Whether who takes out sleeps, and for what it wants to be woken. */
enum { AWAKE = 0, SLEEPS_FOR_ALL = 1, SLEEPS_FOR_ANSWERS = 2 /* to all but Writes */ };

struct ring {
	_Atomic uint32_t *head;   /* how many bytes have been put in, modulo 2^32 */
	_Atomic uint32_t *wants;  /* 1: who puts in waits for room, with futex(2) */
	_Atomic uint32_t *tail;   /* how many have been taken out, modulo 2^32 */
	_Atomic uint32_t *sleeps; /* see above */
	char *data;
	uint32_t at; /* head or tail, whichever is ours */
};

struct rings {
	char *mem; /* NULL: there are none */
	int fd;    /* of the memory, to be sent to tlsd; -1 once it is */
	struct ring in, out;
};

/* False if there is no shared memory to be had, which is no reason to fail. */
bool rings_make(struct rings *r);
void rings_free(struct rings *r);

/* Closes the descriptor. */
void rings_sent(struct rings *r);

/* What can be taken out, in one piece; false if tlsd has written what cannot be. */
bool ring_peek(const struct ring *r, const char **at, size_t *len);

/* Whether there is something to be taken out. Unlike ring_peek it can be asked by any thread, and it
 * does not notice if tlsd has written what cannot be. */
bool ring_has_some(const struct ring *r);

/* Takes out len bytes, which have been seen. */
void ring_take(struct ring *r, size_t len);

/* Says that who takes out goes to sleep. If it then sees that there is something after all, it says that it is awake. */
void ring_sleep(struct ring *r, uint32_t sleeps);
void ring_awake(struct ring *r);

/* Has who sleeps woken for all. */
void ring_sleep_for_all(struct ring *r);

/* Puts in as much as there is room for; false if tlsd has written what cannot be. Who takes out
 * sees it after ring_publish, which says whether it has to be woken. */
bool ring_put(struct ring *r, const char *from, size_t len, size_t *done);
bool ring_publish(struct ring *r);

bool ring_has_room(const struct ring *r, size_t len);

/* Waits until there is room, but not for longer than so, and not beyond ring_give_up or a signal; false if there is none then. */
bool ring_await_room(struct ring *r, int ms);
void ring_give_up(struct ring *r);

#endif
