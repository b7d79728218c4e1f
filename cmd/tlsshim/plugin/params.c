#define _POSIX_C_SOURCE 200809L
#include "params.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "json.h"
#include "text.h"

static bool is_path(const struct call *c, int i)
{
	switch (c->method->texts[i].is) {
	case PLAIN:
		return false;
	case PATH:
		return true;
	case PATH_OR_EMPTY:
		break;
	case OPTION_VALUE:
		if (strcmp(c->texts[i - 1], "ca") != 0 && strcmp(c->texts[i - 1], "client-ca") != 0)
			return false;
	}
	return *c->texts[i] != '\0';
}

/* Adds a path. Returns false with the error set if the absolute path is unknown or not UTF-8. */
static bool put_path(struct text *out, struct process *p, const char *op, const char *name,
		     const char *path)
{
	char *whole = absolute_path(path);
	bool good = whole && utf8_valid(whole, strlen(whole));

	if (!whole)
		fail(p, "params", op, 0, "%s %s: the working directory: %s", name, path,
		     errno_text(errno));
	else if (!good)
		fail(p, "params", op, 0, "%s %s: the path of the working directory must be UTF-8",
		     name, path);
	else
		json_put_string(out, whole);
	free(whole);
	return good;
}

/* Adds a text. Returns false with the error set if the text is wrong. */
static bool put_text(struct text *out, struct process *p, const struct call *c, int i)
{
	const char *op = c->method->name, *name = c->method->texts[i].name, *text = c->texts[i];
	size_t len = text ? strnlen(text, PATH_MAX) : 0;

	if (!text)
		fail(p, "params", op, 0, "%s: must not be NULL", name);
	else if (len == PATH_MAX)
		fail(p, "params", op, 0, "%s: must not be longer than %d bytes", name,
		     PATH_MAX - 1);
	else if (!utf8_valid(text, len))
		fail(p, "params", op, 0, "%s: must be UTF-8", name);
	else if (is_path(c, i) && len == 0)
		fail(p, "params", op, 0, "%s: must not be empty", name);
	else if (!is_path(c, i))
		return json_put_string(out, text);
	else
		return put_path(out, p, op, name, text);
	return false;
}

char *params_make(struct process *p, const struct call *c)
{
	const struct method *m = c->method;
	struct text out = { 0 };
	char *blob = NULL;
	bool good = true;

	text_put(&out, "[");
	if (!(m->flags & OPENS) || m->flags & NAMES_ZERO)
		text_put(&out, "%" PRId64 ",", c->handle);
	for (int i = 0; good && i < MOST_TEXTS && m->texts[i].name; i++) {
		good = put_text(&out, p, c, i);
		text_put(&out, ",");
	}
	if (m->blob) {
		blob = base64_text(c->blob, c->blob_len);
		text_put(&out, "\"%s\",", blob ? blob : "");
		out.failed = out.failed || !blob;
		free(blob);
	}
	if (m->number)
		text_put(&out, "%" PRId64 ",", c->n);
	if (c->pass)
		text_put(&out, "1,");
	if (!out.failed && out.bytes[out.len - 1] == ',')
		out.bytes[--out.len] = '\0';
	text_put(&out, "]");
	if (good && !out.failed)
		return out.bytes;
	if (good)
		fail(p, "limit", m->name, 0, "out of memory");
	free(out.bytes);
	return NULL;
}
