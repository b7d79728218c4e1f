#define _POSIX_C_SOURCE 200809L
#include "channel.h"

#include <stdlib.h>

static struct channel **bucket(struct channels *t, int64_t handle)
{
	return &t->buckets[(uint64_t)handle % CHANNEL_BUCKETS];
}

struct channel *channel_find(struct channels *t, int64_t handle)
{
	struct channel *ch = *bucket(t, handle);

	while (ch && ch->handle != handle)
		ch = ch->next;
	return ch;
}

struct channel *channel_make(struct channels *t, int64_t handle)
{
	struct channel *ch = channel_find(t, handle), **first = bucket(t, handle);

	if (ch)
		return ch;
	ch = calloc(1, sizeof *ch);
	if (!ch)
		return NULL;
	ch->handle = handle;
	ch->refs = 1;
	turn_init(&ch->reading.turn);
	turn_init(&ch->writing.turn);
	ch->next = *first;
	*first = ch;
	return ch;
}

void channel_release(struct channel *ch)
{
	if (!ch || --ch->refs > 0)
		return;
	owned_close(ch->fd);
	turn_destroy(&ch->reading.turn);
	turn_destroy(&ch->writing.turn);
	free(ch->reading.error);
	free(ch->writing.error);
	free(ch);
}

int channel_raise(struct process *p, struct channel *ch, const struct direction *d)
{
	ch->writing.reported = true; /* even if d is ch->reading; see channel.h */
	return error_set(p, d->kind, "", d->error ? d->error : "tlsd does not say what has failed");
}

bool channel_raise_unreported(struct process *p, struct channel *ch)
{
	return ch && ch->sent > 0 && ch->writing.state == BROKEN_OFF && !ch->writing.reported &&
	       channel_raise(p, ch, &ch->writing) < 0;
}

void channel_drop(struct channels *t, struct channel *ch)
{
	struct channel **link = bucket(t, ch->handle);

	while (*link && *link != ch)
		link = &(*link)->next;
	if (!*link)
		return; /* another thread was faster */
	*link = ch->next;
	channel_release(ch);
}

void channels_drop_all(struct channels *t)
{
	for (int i = 0; i < CHANNEL_BUCKETS; i++)
		while (t->buckets[i])
			channel_drop(t, t->buckets[i]);
}
