/*
 * parse.c - a line of tlsd's is taken apart, which must be an answer of JSON-RPC 2.0.
 */
#define _GNU_SOURCE
#include <string.h>

#include "wire.h"

/* Reads text that the line begins with. */
static bool skip(struct span *line, const char *text)
{
	size_t len = strlen(text);

	if (line->len < len || memcmp(line->at, text, len) != 0)
		return false;
	line->at += len;
	line->len -= len;
	return true;
}

/* Reads a number that the line begins with, of at most 15 digits and without a sign. */
static bool skip_number(struct span *line, int64_t *n)
{
	size_t i = 0;

	for (*n = 0; i < line->len && i < 15 && line->at[i] >= '0' && line->at[i] <= '9'; i++)
		*n = *n * 10 + (line->at[i] - '0');
	if (i == 0 || (i > 1 && line->at[0] == '0'))
		return false;
	line->at += i;
	line->len -= i;
	return true;
}

/* Takes the answers to Read and Write apart as tlsd writes them when nothing has gone wrong:
 *
 *     {"jsonrpc":"2.0","id":ID,"result":N}
 *     {"jsonrpc":"2.0","id":ID,"result":null,"raw":N}
 */
static bool take_apart_usual(struct span line, struct answer *a)
{
	struct span number;
	int64_t n;

	*a = (struct answer){ 0 };
	if (!skip(&line, "{\"jsonrpc\":\"2.0\",\"id\":") || !skip_number(&line, &a->id) || !skip(&line, ",\"result\":"))
		return false;
	number = line;
	if (skip_number(&line, &n)) {
		a->result = (struct span){ number.at, number.len - line.len };
		return line.len == 1 && *line.at == '}';
	}
	a->result = (struct span){ number.at, 4 };
	if (!skip(&line, "null,\"raw\":") || !skip_number(&line, &n) || n > RAW_MAX_BYTES)
		return false;
	a->has_raw = true;
	a->raw = (size_t)n;
	return line.len == 1 && *line.at == '}';
}

bool wire_parse(struct span line, struct answer *a)
{
	struct span id, error, raw;
	int64_t n;

	if (take_apart_usual(line, a))
		return true;
	if (!json_valid(line) || !json_is(json_member(line, "jsonrpc"), "\"2.0\""))
		return false;
	id = json_member(line, "id");
	error = json_member(line, "error");
	raw = json_member(line, "raw");

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
	if (raw.at) {
		if (!json_int(raw, &n) || n < 0 || n > RAW_MAX_BYTES || !json_is(a->result, "null"))
			return false;
		a->has_raw = true;
		a->raw = (size_t)n;
	}
	return true;
}

const char *answer_reason(const char *message)
{
	return strncmp(message, "lost: ", 6) == 0 ? message + 6 : message;
}
