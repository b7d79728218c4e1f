/*
 * parse.c - a line of tlsd's is taken apart, which must be an answer of JSON-RPC 2.0.
 */
#include <string.h>

#include "wire.h"

bool wire_parse(struct span line, struct answer *a)
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
	}
	return true;
}

const char *answer_reason(const char *message)
{
	return strncmp(message, "lost: ", 6) == 0 ? message + 6 : message;
}
