/*
 * calls.c - the calls of a session: in one list, and by their ids, which count up, in buckets,
 * so that an answer finds its call among a thousand.
 */
#include "session.h"

void calls_add(struct session *s, struct call *c)
{
	struct call **bucket = &s->by_id[(uint64_t)c->id % CALL_BUCKETS];

	c->prev = NULL;
	c->next = s->calls;
	if (c->next)
		c->next->prev = c;
	s->calls = c;
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
		s->calls = c->next;
}

struct call *calls_find(struct session *s, int64_t id)
{
	struct call *c = s->by_id[(uint64_t)id % CALL_BUCKETS];

	while (c && c->id != id)
		c = c->same;
	return c;
}
