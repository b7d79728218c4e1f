#define _POSIX_C_SOURCE 200809L
#include "plain.h"

#include <inttypes.h>

#include "base64.h"
#include "client.h"
#include "data.h"

static const struct method
	read_plain = { .name = "tls.ReadPlain", .number = true, .result = TEXT,
		       .waits_on = CONNECTION },
	write_plain = { .name = "tls.WritePlain", .blob = true, .waits_on = CONNECTION };

/* The most bytes that one tls_ReadPlain asks for. In base64 they fit into the longest line of an
 * answer (wire.h). */
enum { PLAIN_BYTES = 256 * 1024 };

int64_t plain_read(struct process *p, struct call *c)
{
	int64_t result = -1;

	c->method = &read_plain;
	c->n = (int64_t)(c->room < PLAIN_BYTES ? c->room : PLAIN_BYTES);
	if (!data_has_room(p, c, read_plain.name) || client_run(p, c) < 0)
		return -1;
	result = base64_bytes(c->text, c->buf, (size_t)c->n);
	if (result < 0)
		fail(p, "internal", read_plain.name, c->handle,
		     "tlsd has answered with a text that is not base64 of at most %" PRId64
		     " bytes",
		     c->n);
	return result;
}

int64_t plain_write(struct process *p, struct call *c)
{
	c->method = &write_plain;
	if (!data_is_good(p, c, write_plain.name) || client_run(p, c) < 0)
		return -1;
	return (int64_t)c->blob_len;
}
