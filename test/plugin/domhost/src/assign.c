/*
 * assign.c - assignments, ++ and --
 *
 * = stores a whole string or blob, even beyond the declared capacity; := cuts the value to the
 * capacity. An element of a blob is a number of 0 to 255. If a script assigns to an element beyond
 * the length, but within the capacity, the blob becomes longer.
 */
#include "interp.h"
#include "lexer.h"

#include <inttypes.h>

#define BOUNDED OP2(':', '=')

/* What an assignment changes: a variable, or one element of a blob. */
typedef struct {
	const char *name;
	int line;
	Variable *variable;
	bool element;
	size_t index;
} Target;

static bool find_target(Interp *in, const Node *n, Target *t)
{
	const Node *var = n->kind == N_INDEX ? n->a : n;
	*t = (Target){.name = var->name, .line = n->line, .variable = &in->frame[var->slot],
	              .element = n->kind == N_INDEX};
	if (!t->element)
		return true;
	if (t->variable->type != T_BLOB)
		return fail(in->f, n->line, "only a blob has elements; $%s is %s", t->name,
		            type_phrase(t->variable->type));
	Value index;
	bool ok = eval(in, n->b, &index) && (value_convert(&index, T_I64, in->f, n->line) ||
	                                     fail_in(in->f, "the index of $%s", t->name));
	size_t limit = t->variable->v.u.b->len;
	if (limit < t->variable->declared)
		limit = t->variable->declared;
	if (ok && (index.u.i < 0 || (uint64_t)index.u.i >= limit))
		ok = fail(in->f, n->line,
			"the index %" PRId64 " is outside of $%s, which has room for "
		          "%zu bytes", index.u.i, t->name, limit);
	if (ok)
		t->index = (size_t)index.u.i;
	value_free(&index);
	return ok;
}

static Value load_element(const Target *t)
{
	const Bytes *b = t->variable->v.u.b;
	return value_int(T_I32, t->index < b->len ? (unsigned char)b->data[t->index] : 0);
}

static bool store_element(Interp *in, const Target *t, const Value *v)
{
	Value byte = value_copy(*v);
	if (!value_convert(&byte, T_I64, in->f, t->line)) {
		value_free(&byte);
		return fail_in(in->f, "$%s[%zu]", t->name, t->index);
	}
	if (byte.u.i < 0 || byte.u.i > 255)
		return fail(in->f, t->line, "$%s[%zu]: %" PRId64 " is not a byte (0 to 255)",
			t->name,
		            t->index, byte.u.i);
	value_set_byte(&t->variable->v, t->index, (uint8_t)byte.u.i);
	return true;
}

/* On success the value has moved from *v to the variable, and *v is void. */
static bool store_variable(Interp *in, const Target *t, int op, Value *v)
{
	Variable *var = t->variable;
	if (!value_convert(v, var->type, in->f, t->line))
		return fail_in(in->f, "$%s", t->name);
	if (op == BOUNDED && type_is_bytes(var->type) && var->declared > 0)
		value_truncate(v, var->declared);
	Value old = var->v;
	var->v = *v;
	*v = value_void();
	value_free(&old);
	return true;
}

/* Carries out `t op= v`, such as `t += v`. The value of a variable is changed in place. So a loop
 * that appends to a long string does not copy the string each time. */
static bool compound(Interp *in, const Target *t, int op, const Value *v)
{
	if (t->element) {
		Value byte = load_element(t);
		return value_binary(op, &byte, v, in->f, t->line) && store_element(in, t, &byte);
	}
	Variable *var = t->variable;
	return value_binary(op, &var->v, v, in->f, t->line) &&
	       (value_convert(&var->v, var->type, in->f, t->line) ||
	       fail_in(in->f, "$%s", t->name));
}

bool eval_assign(Interp *in, const Node *n, Value *out)
{
	Target t;
	Value v;
	bool ok = eval(in, n->b, &v) && find_target(in, n->a, &t);

	if (ok && n->op != '=' && n->op != BOUNDED)
		ok = compound(in, &t, n->op, &v);
	else if (ok)
		ok = t.element ? store_element(in, &t, &v) : store_variable(in, &t, n->op, &v);
	value_free(&v);
	if (ok)
		*out = t.element ? load_element(&t) : value_copy(t.variable->v);
	return ok;
}

bool eval_step(Interp *in, const Node *n, Value *out)
{
	Target t;
	Value one = value_int(T_I32, 1);
	if (!find_target(in, n->a, &t))
		return false;
	Value before = t.element ? load_element(&t) : value_copy(t.variable->v);
	bool ok = compound(in, &t, n->op, &one);
	if (ok && n->kind == N_STEP_AFTER)
		*out = value_copy(before);
	else if (ok)
		*out = t.element ? load_element(&t) : value_copy(t.variable->v);
	value_free(&before);
	return ok;
}
