#define _POSIX_C_SOURCE 200809L
#include "error.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
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

/* --- the last error ---
 *
 * Each thread's error is stored with a pthread key, not in a _Thread_local variable. The loader
 * allocates such a variable at its first use, under a lock. If another thread holds the lock during
 * a fork(2), the child waits for the lock for ever. If there is no memory, the loader ends the
 * process. */

struct last_error {
	struct last_error *next, **link; /* in p->errors; *link points here; guarded by mu */
	struct process *of;
	struct kind kind;       /* of the most recent call */
	char text[ERROR_BYTES]; /* of the most recent call that has failed */
};

enum { FIRST_BYTES = 64 /* room for a method and a handle */ };

static pthread_key_t key;
static atomic_bool has_key;

/* Returns this thread's last error, or NULL. In a child of fork(2) an error from before the fork
 * does not count. */
static struct last_error *find(const struct process *p)
{
	struct last_error *e = atomic_load(&has_key) ? pthread_getspecific(key) : NULL;

	return e && e->of == p ? e : NULL;
}

/* Returns this thread's last error, and makes it if there is none. Returns NULL if there is no
 * memory. mu is held. */
static struct last_error *find_or_make(struct process *p)
{
	struct last_error *e = find(p);

	if (e || !atomic_load(&has_key))
		return e;
	e = calloc(1, sizeof *e);
	if (!e || pthread_setspecific(key, e) != 0) {
		free(e);
		return NULL;
	}
	e->of = p;
	e->next = p->errors;
	e->link = &p->errors;
	if (e->next)
		e->next->link = &e->next;
	p->errors = e;
	return e;
}

/* Runs when a thread ends, and frees the thread's error. It does not free the error in two cases.
 * If the error was made in the parent, before fork(2), it belongs to the parent. If
 * process_retire() has taken the struct process out of use, errors_free() frees the error. */
static void thread_ends(void *at)
{
	struct last_error *e = at;

	if (process_enter(e->of)) {
		pthread_mutex_lock(&e->of->mu);
		*e->link = e->next;
		if (e->next)
			e->next->link = e->link;
		pthread_mutex_unlock(&e->of->mu);
		free(e);
	}
	process_leave();
}

__attribute__((constructor)) static void make_key(void)
{
	atomic_store(&has_key, pthread_key_create(&key, thread_ends) == 0);
}

void error_end(void)
{
	if (atomic_exchange(&has_key, false))
		pthread_key_delete(key);
}

void errors_free(struct process *p)
{
	while (p->errors) {
		struct last_error *e = p->errors;

		p->errors = e->next;
		free(e);
	}
}

int error_set(struct process *p, struct kind kind, const char *first, const char *rest)
{
	struct last_error *e = find_or_make(p);

	p->error[0] = '\0';
	text_add(p->error, sizeof p->error, "%s%s", first, rest);
	if (e) {
		e->kind = kind;
		memcpy(e->text, p->error, sizeof e->text);
	}
	return -1;
}

static void set(struct process *p, const char *kind, const char *op, int64_t handle,
		const char *why, va_list args)
{
	char first[FIRST_BYTES] = "", rest[ERROR_BYTES] = "";

	text_add(first, sizeof first, "%s: ", op);
	if (handle)
		text_add(first, sizeof first, "handle %" PRId64 ": ", handle);
	text_vadd(rest, sizeof rest, why, args);
	error_set(p, kind_of(kind), first, rest);
}

int fail(struct process *p, const char *kind, const char *op, int64_t handle, const char *why, ...)
{
	va_list args;

	if (!p)
		return -1;
	va_start(args, why);
	pthread_mutex_lock(&p->mu);
	set(p, kind, op, handle, why, args);
	pthread_mutex_unlock(&p->mu);
	va_end(args);
	return -1;
}

int fail_held(struct process *p, const char *kind, const char *op, int64_t handle, const char *why,
	      ...)
{
	va_list args;

	va_start(args, why);
	set(p, kind, op, handle, why, args);
	va_end(args);
	return -1;
}

void error_clear(struct process *p)
{
	struct last_error *e = find(p);

	if (e)
		e->kind = (struct kind){ .name = "" };
}

struct kind error_kind(const struct process *p)
{
	const struct last_error *e = find(p);

	if (!p)
		return kind_of("limit"); /* there is no memory */
	return e ? e->kind : (struct kind){ .name = "" };
}

void error_text(struct process *p, char text[ERROR_BYTES])
{
	const struct last_error *e = find(p);

	text[0] = '\0';
	if (!p) {
		text_add(text, ERROR_BYTES, "out of memory");
	} else if (e) {
		memcpy(text, e->text, ERROR_BYTES);
	} else {
		pthread_mutex_lock(&p->mu);
		memcpy(text, p->error, ERROR_BYTES);
		pthread_mutex_unlock(&p->mu);
	}
}
