/*
 * work.h - the work that a client can do
 *
 * Each work function measures itself (measure.h), and ends the program if a byte is wrong.
 */
#ifndef WORK_H
#define WORK_H

#include <stddef.h>
#include <stdint.h>

#include "link.h"

struct work_options {
	size_t size;     /* of a piece or message, bytes */
	int connections;
	double seconds;  /* about how long to work */
	/* If apart is set, each connection has a process of its own, which passes apart to
	 * link_setup. */
	const struct link_options *apart;
};

void work_write(const struct work_options *o);    /* units: bytes */
void work_read(const struct work_options *o);     /* units: bytes */
void work_pingpong(const struct work_options *o); /* units: round trips */
void work_beside(const struct work_options *o);   /* units: round trips */
void work_connect(const struct work_options *o);  /* units: connections */
void work_idle(const struct work_options *o);     /* units: connections */

/* Sends a command to the sink. */
void command(struct link *l, uint64_t operation, uint64_t a, uint64_t b);
/* Reads the sink's answer. */
uint64_t answer(struct link *l);
void read_all(struct link *l, void *to, size_t n);

#endif
