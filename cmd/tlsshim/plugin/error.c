#define _POSIX_C_SOURCE 200809L
#include "error.h"

#include <stdarg.h>
#include <string.h>

#include "process.h"
#include "text.h"

/* --- kinds --- */

static const struct kind kinds[] = {
	{ "params", -32602 },  { "handle", -32001 },	{ "state", -32002 },
	{ "backend", -32003 }, { "file", -32004 },	{ "connect", -32005 },
	{ "handshake", -32006 }, { "verify", -32007 },	{ "io", -32008 },
	{ "timeout", -32009 }, { "cancelled", -32010 }, { "limit", -32011 },
	{ "denied", -32012 },  { "lost", -32013 },	{ "internal", -32603 },
};

enum { KINDS = sizeof kinds / sizeof *kinds };

struct kind kind_of(const char *name)
{
	for (int i = 0; i < KINDS; i++)
		if (strcmp(kinds[i].name, name) == 0)
			return kinds[i];
	return kinds[KINDS - 1];
}

struct kind kind_read(struct span error)
{
	struct span name = json_member(json_member(error, "data"), "kind");
	struct kind k = { .name = "" };
	int64_t code;

	if (!json_is_string(name) || name.len - 2 >= sizeof k.name)
		return kind_of("internal");
	memcpy(k.name, name.at + 1, name.len - 2); /* without the quotes */
	if (!*k.name || strspn(k.name, "abcdefghijklmnopqrstuvwxyz-") != name.len - 2)
		return kind_of("internal");
	if (json_int(json_member(error, "code"), &code) && code < 0 && code >= INT32_MIN)
		k.code = (int32_t)code;
	else
		k.code = kind_of(k.name).code;
	return k;
}

/* --- the last error --- */

/* A child of fork(2) has its parent's memory, but not its errors: of tells them apart. */
static _Thread_local struct {
	const struct process *of; /* whose error this is; NULL: there was none */
	struct kind kind;         /* of the last call */
	char text[ERROR_BYTES];   /* of the last call that has failed */
} mine;

static void set(struct process *p, struct kind kind, const char *format, va_list args)
{
	mine.of = p;
	mine.kind = kind;
	mine.text[0] = '\0';
	text_vadd(mine.text, sizeof mine.text, format, args);
	memcpy(p->error, mine.text, strlen(mine.text) + 1);
}

int64_t process_fail(struct process *p, const char *kind, const char *format, ...)
{
	va_list args;

	if (!p)
		return -1;
	va_start(args, format);
	pthread_mutex_lock(&p->mu);
	set(p, kind_of(kind), format, args);
	pthread_mutex_unlock(&p->mu);
	va_end(args);
	return -1;
}

void process_set_error(struct process *p, struct kind kind, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	set(p, kind, format, args);
	va_end(args);
}

void error_clear(void)
{
	mine.kind = (struct kind){ .name = "" };
}

struct kind error_kind(const struct process *p)
{
	if (!p)
		return kind_of("limit"); /* there is no memory */
	return mine.of == p ? mine.kind : (struct kind){ .name = "" };
}

void error_text(struct process *p, char text[ERROR_BYTES])
{
	text[0] = '\0';
	if (!p) {
		text_add(text, ERROR_BYTES, "out of memory");
	} else if (mine.of == p) {
		memcpy(text, mine.text, ERROR_BYTES);
	} else {
		pthread_mutex_lock(&p->mu);
		memcpy(text, p->error, ERROR_BYTES);
		pthread_mutex_unlock(&p->mu);
	}
}
