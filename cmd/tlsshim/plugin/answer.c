/*
 * answer.c - what an answer means for the call that it belongs to.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "session.h"
#include "text.h"

/* Checks the answer to Hello. */
static bool agree(struct process *p, struct session *s, struct answer *a, char *why)
{
	int64_t version = 0;

	if (a->error.at) {
		char *message = json_text(a->error);
		text_add(why, WHY_BYTES, "%s", message ? message : "out of memory");
		free(message);
		return false;
	}
	if (!json_int(json_member(a->result, "version"), &version) || version != 1) {
		text_add(why, WHY_BYTES, "tlsd does not speak version 1 of the protocol");
		return false;
	}
	if (!json_array_has(json_member(a->result, "capabilities"), "\"raw\"")) {
		text_add(why, WHY_BYTES, "tlsd does not have the capability raw");
		return false;
	}
	if (json_array_has(json_member(a->result, "capabilities"), "\"ring\"")) {
		if (!s->wire.rings.mem) {
			text_add(why, WHY_BYTES, "tlsd uses shared memory that it was not given");
			return false;
		}
		wire_share(&s->wire);
	}
	s->agreed = true;
	for (struct call *c = s->calls; c; c = c->next)
		pthread_cond_signal(&c->woken);
	turn_stir(&p->opening);
	return true;
}

/* Takes the result of a call over, if it is what the method gives. Leaves mu
 * while it reads a blob; the call stays where it is, because only the leader,
 * who is here, can end it. */
static bool take_result(struct process *p, struct session *s, struct call *c, struct answer *a, struct wait *w, char *why)
{
	bool ok = a->has_raw == (c->method->result == BLOB);

	switch (c->method->result) {
	case NUMBER:
		ok = ok && json_int(a->result, &c->number) && c->number >= 0 && c->number <= INT32_MAX;
		if (ok && c->has_blob)
			ok = (size_t)c->number == c->blob_len;
		if (ok && (c->method->flags & MAKES_HANDLE)) {
			ok = c->number >= s->first;
			if (ok && c->number > atomic_load(&p->highest))
				atomic_store(&p->highest, (int32_t)c->number);
		}
		break;
	case TEXT:
		ok = ok && json_is_string(a->result);
		if (ok)
			c->text = json_text(a->result);
		break;
	case BLOB:
		ok = ok && a->raw <= c->into_cap;
		if (!ok)
			break;
		c->number = (int64_t)a->raw;
		pthread_mutex_unlock(&p->mu);
		ok = wire_raw(&s->wire, c->into, a->raw, w, why);
		pthread_mutex_lock(&p->mu);
		return ok;
	}
	if (!ok)
		text_add(why, WHY_BYTES, "tlsd has answered %s with what cannot be its result", c->method->name);
	return ok;
}

bool answer_deliver(struct process *p, struct session *s, struct answer *a, struct wait *w, char *why)
{
	struct call *c;

	if (a->id_null) {
		char *message = a->error.at ? json_text(a->error) : NULL;
		const char *text = message ? message : "tlsd has sent an answer to nothing";
		text_add(why, WHY_BYTES, "%s", answer_reason(text));
		free(message);
		return false;
	}
	if (a->id == HELLO_ID && !s->agreed)
		return agree(p, s, a, why);
	c = calls_find(s, a->id);
	if (!c || c->done || !c->begun) {
		text_add(why, WHY_BYTES, "tlsd has answered a call that is not waiting: id %" PRId64, a->id);
		return false;
	}
	if (a->error.at) {
		c->failed = true;
		if (!c->ahead)
			c->text = json_text(a->error);
	} else if (!take_result(p, s, c, a, w, why)) {
		return false;
	}
	if (c->ahead) {
		ahead_end(s, c, a);
		return true;
	}
	c->done = true;
	pthread_cond_signal(&c->woken);
	return true;
}
