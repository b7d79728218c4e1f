/*
 * calls.c - the calls of a session: those of threads in one list, those that run ahead
 * in another, and all by their ids, which count up, in buckets, so that an answer finds
 * its call among a thousand.
 */
#define _GNU_SOURCE
#include "session.h"

static struct call **list(struct session *s, const struct call *c)
{
	return c->ahead ? &s->calls_ahead : &s->calls;
}

void calls_add(struct session *s, struct call *c)
{
	struct call **bucket = &s->by_id[(uint64_t)c->id % CALL_BUCKETS], **first = list(s, c);

	c->prev = NULL;
	c->next = *first;
	if (c->next)
		c->next->prev = c;
	*first = c;
	c->same = *bucket;
	*bucket = c;
}

void calls_remove(struct session *s, struct call *c)
{
	struct call **link = &s->by_id[(uint64_t)c->id % CALL_BUCKETS];

	while (*link != c)
		link = &(*link)->same;
	*link = c->same;
	if (c->next)
		c->next->prev = c->prev;
	if (c->prev)
		c->prev->next = c->next;
	else
		*list(s, c) = c->next;
}

struct call *calls_find(struct session *s, int64_t id)
{
	struct call *c = s->by_id[(uint64_t)id % CALL_BUCKETS];

	while (c && c->id != id)
		c = c->same;
	return c;
}
