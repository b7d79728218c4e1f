/* native.c - argument checks, and the functions of the blob plugin; see native.h */
#include "native.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool from_text(const NativeCall *c, Value *result)
{
	*result = value_copy(c->args[0]);
	result->type = T_BLOB;
	return true;
}

static bool to_text(const NativeCall *c, Value *result)
{
	*result = value_copy(c->args[0]);
	result->type = T_STRING;
	return true;
}

static const Native builtins[] = {
	{"printf", NULL, {{"format", P_TEXT}, {"...", P_REST}}, builtin_printf},
	{"blob.FromText", NULL, {{"text", P_TEXT}}, from_text},
	{"blob.ToText", NULL, {{"blob", P_BLOB}}, to_text},
};

const Native *builtin_find(const char *name)
{
	for (size_t i = 0; i < sizeof builtins / sizeof *builtins; i++)
		if (strcmp(builtins[i].name, name) == 0)
			return &builtins[i];
	return NULL;
}

static size_t parameter_count(const Native *n)
{
	size_t count = 0;
	while (count < MAX_NATIVE_PARAMETERS && n->parameters[count].kind != P_NONE)
		count++;
	return count;
}

/* Returns the names of the parameters, such as "host, port". The caller frees the text. */
static char *parameter_names(const Native *n, size_t count)
{
	char *names = copy_text("", 0);
	for (size_t i = 0; i < count; i++) {
		char *more = format_text("%s%s%s", names, i > 0 ? ", " : "", n->parameters[i].name);
		free(names);
		names = more;
	}
	return names;
}

bool native_check_count(const Native *n, size_t count, Failure *f, int line)
{
	size_t max = parameter_count(n);
	ParameterKind last = max > 0 ? n->parameters[max - 1].kind : P_NONE;
	size_t min = last == P_OPTIONAL_I64 || last == P_REST ? max - 1 : max;

	if (count >= min && (count <= max || last == P_REST))
		return true;
	if (max == 0)
		return fail(f, line, "%s: takes no arguments, got %zu", n->name, count);
	char *number = last == P_REST            ? format_text("at least %zu", min) :
	               last == P_OPTIONAL_I64 ? format_text("%zu or %zu", min, max) :
	                                        format_text("%zu", max);
	char *names = parameter_names(n, max);
	fail(f, line, "%s: takes %s argument%s (%s), got %zu", n->name, number,
	     max == 1 && min == 1 ? "" : "s", names, count);
	free(number);
	free(names);
	return false;
}

static bool check_argument(const Native *n, size_t i, const Value *v, Failure *f, int line)
{
	static const struct {
		const char *phrase;
		Type type;
	} wanted[] = {[P_I32] = {"an int", T_I64},     [P_I64] = {"an int", T_I64},
	              [P_STRING] = {"a string", T_STRING}, [P_TEXT] = {"a string", T_STRING},
	              [P_BLOB] = {"a blob", T_BLOB},   [P_OPTIONAL_I64] = {"an int", T_I64}};
	ParameterKind kind = n->parameters[i].kind;
	const char *name = n->parameters[i].name;

	if (kind == P_REST)
		return true;
	bool ok = v->type == wanted[kind].type || (v->type == T_I32 && wanted[kind].type == T_I64);
	if (!ok)
		return fail(f, line, "%s: argument %zu (%s) must be %s, got %s", n->name,
			i + 1, name,
		            wanted[kind].phrase, type_phrase(v->type));
	if (kind == P_I32 && (v->u.i < INT32_MIN || v->u.i > INT32_MAX))
		return fail(f, line, "%s: argument %zu (%s) must be an i32, got %" PRId64, n->name,
		            i + 1, name, v->u.i);
	if (kind == P_STRING && strlen(v->u.b->data) != v->u.b->len)
		return fail(f, line, "%s: argument %zu (%s) has a zero byte in it", n->name, i + 1,
		            name);
	return true;
}

bool native_call(const Native *n, Value *args, size_t count, Failure *f, int line, Value *result)
{
	size_t named = parameter_count(n);
	for (size_t i = 0; i < count && i < named; i++)
		if (!check_argument(n, i, &args[i], f, line))
			return false;
	NativeCall c = {.native = n, .args = args, .count = count, .f = f, .line = line};
	*result = value_void();
	return n->call(&c, result);
}
