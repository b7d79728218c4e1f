/*
 * answer.c - the answers of tlsd. A line must be an answer of JSON-RPC 2.0 with the id of a call
 * that waits. This call gets the result or the error. Any other line ends the session.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "session.h"
#include "text.h"

#define NO_ANSWER "tlsd has sent a line that is no answer of JSON-RPC 2.0"

struct answer {
	bool id_null; /* the line belongs to no call: tlsd says why it ends the session */
	int64_t id;
	struct span error; /* the JSON string with an error's message; .at is NULL: no error */
	struct kind kind;  /* the error's kind */
	struct span result;
};

/* Takes a line apart. Returns false if the line is no answer of JSON-RPC 2.0. */
static bool parse(struct span line, struct answer *a)
{
	struct span id, error;

	if (!json_valid(line) || !json_is(json_member(line, "jsonrpc"), "\"2.0\""))
		return false;
	id = json_member(line, "id");
	error = json_member(line, "error");

	*a = (struct answer){ .result = json_member(line, "result") };
	a->id_null = json_is(id, "null");
	if (!a->id_null && !json_int(id, &a->id))
		return false;
	if ((a->result.at != NULL) == (error.at != NULL))
		return false;
	if (error.at) {
		a->error = json_member(error, "message");
		if (!json_is_string(a->error))
			return false;
		a->kind = kind_read(error);
	}
	return true;
}

/* Adds tlsd's reason for the end of the session to the string in why, without "lost: ". The plugin
 * itself begins the errors of a lost session with this word. */
static void take_reason(const struct answer *a, char *why)
{
	char *message = a->error.at ? json_text(a->error) : NULL;
	const char *text = message ? message : "tlsd has sent an answer without an id";

	if (strncmp(text, "lost: ", 6) == 0)
		text += 6;
	text_add(why, WHY_BYTES, "%s", *text ? text : "tlsd gives no reason");
	free(message);
}

bool answer_agree(struct session *s, struct span line, char *why)
{
	int64_t version = 0, n;
	struct answer a;

	if (!parse(line, &a)) {
		text_add(why, WHY_BYTES, NO_ANSWER);
	} else if (a.id_null || a.error.at) {
		take_reason(&a, why);
	} else if (a.id != HELLO_ID) {
		text_add(why, WHY_BYTES,
			 "tlsd has answered a call that is not waiting: id %" PRId64, a.id);
	} else if (!json_int(json_member(a.result, "version"), &version) || version != 1) {
		text_add(why, WHY_BYTES, "tlsd does not speak version 1 of the protocol");
	} else if (!json_array_has(json_member(a.result, "capabilities"), "\"data\"")) {
		text_add(why, WHY_BYTES, "tlsd does not have the capability data");
	} else {
		if (json_int(json_member(json_member(a.result, "timeouts"), "read"), &n) && n > 0)
			s->read_timeout = n;
		return true;
	}
	return false;
}

/* Stores the result in the call. Returns false, with the reason in why, if the method cannot have
 * this result. */
static bool take_result(struct process *p, struct session *s, struct call *c, struct answer *a,
			char *why)
{
	bool ok = !(c->method->flags & FAILS);

	switch (c->method->result) {
	case NOTHING:
	case NUMBER:
		ok = ok && json_int(a->result, &c->number) && c->number >= 0;
		ok = ok && c->number <= INT32_MAX;
		if (c->method->result == NOTHING)
			c->number = 0;
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
	case OBJECT:
		ok = ok && *a->result.at == '{';
		if (ok)
			c->text = strndup(a->result.at, a->result.len);
		break;
	}
	if (!ok)
		text_add(why, WHY_BYTES, "tlsd has answered %s with an impossible result",
			 c->method->name);
	return ok;
}

bool answer_deliver(struct process *p, struct session *s, struct span line, char *why)
{
	struct answer a;
	struct call *c;

	if (!parse(line, &a)) {
		text_add(why, WHY_BYTES, NO_ANSWER);
		return false;
	}
	if (a.id_null) {
		take_reason(&a, why);
		return false;
	}
	for (c = s->calls; c && c->id != a.id;)
		c = c->next;
	if (!c || c->done || !c->sent) {
		text_add(why, WHY_BYTES,
			 "tlsd has answered a call that is not waiting: id %" PRId64, a.id);
		return false;
	}
	if (a.error.at) {
		c->failed = true;
		c->text = json_text(a.error);
		c->kind = a.kind;
	} else if (!take_result(p, s, c, &a, why)) {
		return false;
	}
	c->done = true;
	pthread_cond_signal(&c->woken);
	return true;
}
