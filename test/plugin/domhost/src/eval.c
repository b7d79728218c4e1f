/* eval.c - the value of an expression; see interp.h */
#include "interp.h"

#include <inttypes.h>

bool deeper(Interp *in, int line)
{
	if (in->depth == MAX_RUN_DEPTH)
		return fail(in->f, line,
			"calls are nested too deeply (more than %d levels of calls, "
		            "blocks and expressions)", MAX_RUN_DEPTH);
	in->depth++;
	return true;
}

static bool eval_length(Interp *in, const Node *n, Value *out)
{
	if (!eval(in, n->a, out))
		return false;
	if (!type_is_bytes(out->type))
		return fail(in->f, n->line, "only a string or a blob has a Length, not %s",
		            type_phrase(out->type));
	size_t len = out->u.b->len; /* at most MAX_BYTES, so it fits an i32 */
	value_free(out);
	*out = value_int(T_I32, (int64_t)len);
	return true;
}

static bool eval_element(Interp *in, const Node *n, Value *out)
{
	Value blob, index;
	if (!eval(in, n->a, &blob))
		return false;
	bool ok = eval(in, n->b, &index);
	if (ok && blob.type != T_BLOB)
		ok = fail(in->f, n->line, "only a blob has elements, not %s",
			type_phrase(blob.type));
	if (ok)
		ok = value_convert(&index, T_I64, in->f, n->line) || fail_in(in->f, "the index");
	if (ok && (index.u.i < 0 || (uint64_t)index.u.i >= blob.u.b->len))
		ok = fail(in->f, n->line, "the index %" PRId64 " is outside of a blob of %zu bytes",
		          index.u.i, blob.u.b->len);
	if (ok)
		*out = value_int(T_I32, (unsigned char)blob.u.b->data[index.u.i]);
	value_free(&index);
	value_free(&blob);
	return ok;
}

static bool eval_truth(Interp *in, Node *n, bool *truth)
{
	Value v;
	bool ok = eval(in, n, &v) && value_truth(&v, truth, in->f, n->line);
	value_free(&v);
	return ok;
}

static bool eval_binary(Interp *in, const Node *n, Value *out)
{
	Value right;
	if (!eval(in, n->a, out))
		return false;
	bool ok = eval(in, n->b, &right) && value_binary(n->op, out, &right, in->f, n->line);
	value_free(&right);
	return ok;
}

/* && and || give 0 or 1. If the left side decides, the right side is not evaluated. */
static bool eval_logic(Interp *in, const Node *n, Value *out)
{
	bool truth = false, decides = n->kind == N_OR;
	if (!eval_truth(in, n->a, &truth) || (truth != decides && !eval_truth(in, n->b, &truth)))
		return false;
	*out = value_int(T_I32, truth);
	return true;
}

static bool eval_kind(Interp *in, Node *n, Value *out)
{
	bool truth = false;
	switch (n->kind) {
	case N_LITERAL:
		*out = value_copy(n->value);
		return true;
	case N_VAR:
		*out = value_copy(in->frame[n->slot].v);
		return true;
	case N_INDEX:
		return eval_element(in, n, out);
	case N_LENGTH:
		return eval_length(in, n, out);
	case N_CALL:
		return eval_call(in, n, out);
	case N_NOT:
		if (!eval_truth(in, n->a, &truth))
			return false;
		*out = value_int(T_I32, !truth);
		return true;
	case N_NEGATE:
		return eval(in, n->a, out) && value_negate(out, in->f, n->line);
	case N_BINARY:
		return eval_binary(in, n, out);
	case N_AND:
	case N_OR:
		return eval_logic(in, n, out);
	case N_ASSIGN:
		return eval_assign(in, n, out);
	case N_STEP:
	case N_STEP_AFTER:
		return eval_step(in, n, out);
	default:
		return fail(in->f, n->line, "a statement where a value should be");
	}
}

bool eval(Interp *in, Node *n, Value *out)
{
	*out = value_void();
	if (!deeper(in, n->line))
		return false;
	bool ok = eval_kind(in, n, out);
	in->depth--;
	if (!ok)
		value_free(out);
	return ok;
}
