/*
 * json.h - the JSON (RFC 8259) that a client of tlsd needs: a writer for the strings of requests,
 * and a strict reader that looks up members of an answer in place.
 *
 * A span is a piece of a received line, and lives as long as the line. json_valid takes any span.
 * The other readers expect a span that json_valid has accepted, or a span from json_member.
 */
#ifndef TLSPLUGIN_JSON_H
#define TLSPLUGIN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

/* Adds a string, quoted and escaped. It always returns true. So a function that returns a bool can
 * end with "return json_put_string(...)". */
bool json_put_string(struct text *out, const char *text);

struct span {
	const char *at; /* NULL: there is no such value */
	size_t len;
};

/* Whether the line is one JSON value in UTF-8, nested at most 32 deep. */
bool json_valid(struct span line);

/* The value of the object's member with this name. If the span is not an object with exactly one
 * such member, the result is { NULL, 0 }. Names are compared byte by byte; an escape is not
 * decoded. */
struct span json_member(struct span object, const char *name);

/* Whether the bytes of the value are this literal, as in json_is(v, "null"). */
bool json_is(struct span value, const char *literal);

/* Whether the value is an integer that fits into an int64_t. If it is, *n becomes the integer. */
bool json_int(struct span value, int64_t *n);

/* Whether the value is a string. */
bool json_is_string(struct span value);

/* A string's text, which the caller frees, or NULL if there is no memory. U+0000 and lone
 * surrogates become U+FFFD, because a C string in UTF-8 cannot hold them. */
char *json_text(struct span string);

/* Whether the value is an array with an element whose bytes are this literal. */
bool json_array_has(struct span array, const char *literal);

#endif
