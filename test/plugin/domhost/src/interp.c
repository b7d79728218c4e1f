/* interp.c - statements, calls, and the run as a whole; see interp.h */
#include "interp.h"

#include "plugin.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool declare_variable(Interp *in, const Node *n)
{
	Variable *var = &in->frame[n->slot];
	Value capacity = value_void(), v = value_void();
	size_t declared = 0;
	bool ok = true;

	if (n->a != NULL) {
		ok = eval(in, n->a, &capacity) &&
		     (value_convert(&capacity, T_I64, in->f, n->line) ||
		      fail_in(in->f, "the capacity of $%s", n->name));
		if (ok && (capacity.u.i < 1 || (uint64_t)capacity.u.i > MAX_BYTES))
			ok = fail(in->f, n->line,
				"the capacity of $%s must be 1 to %zu, got %" PRId64,
			          n->name, MAX_BYTES, capacity.u.i);
		declared = ok ? (size_t)capacity.u.i : 0;
		value_free(&capacity);
	}
	if (ok && n->b != NULL)
		ok = eval(in, n->b, &v) &&
		     (value_convert(&v, n->type, in->f, n->line) || fail_in(in->f, "$%s", n->name));
	else if (ok)
		v = value_zero(n->type);
	if (!ok) {
		value_free(&v);
		return false;
	}
	value_free(&var->v); /* the value of the previous turn of a loop, if any */
	*var = (Variable){.type = n->type, .declared = declared, .v = v};
	return true;
}

static Flow run_list(Interp *in, const Node *block)
{
	Flow flow = FLOW_NEXT;
	for (size_t i = 0; i < block->list.count && flow == FLOW_NEXT; i++)
		flow = run_statement(in, block->list.items[i]);
	return flow;
}

static bool test(Interp *in, Node *n, bool *truth)
{
	Value v;
	bool ok = eval(in, n, &v) && value_truth(&v, truth, in->f, n->line);
	value_free(&v);
	return ok;
}

static bool run_for_effect(Interp *in, Node *n)
{
	Value v;
	bool ok = eval(in, n, &v);
	value_free(&v);
	return ok;
}

static Flow run_loop(Interp *in, const Node *n)
{
	if (n->a != NULL && run_list(in, n->a) == FLOW_FAIL)
		return FLOW_FAIL;
	for (;;) {
		bool truth = true;
		if (n->b != NULL && !test(in, n->b, &truth))
			return FLOW_FAIL;
		if (!truth)
			return FLOW_NEXT;
		Flow flow = run_statement(in, n->d);
		if (flow == FLOW_BREAK)
			return FLOW_NEXT;
		if (flow == FLOW_RETURN || flow == FLOW_FAIL)
			return flow;
		if (n->c != NULL && !run_for_effect(in, n->c))
			return FLOW_FAIL;
	}
}

/* Sets in->result last, because calls in the expression use in->result as well. */
static Flow run_return(Interp *in, const Node *n)
{
	Value v = value_void();
	if (n->a != NULL && !eval(in, n->a, &v))
		return FLOW_FAIL;
	in->result = v;
	return FLOW_RETURN;
}

static Flow run_kind(Interp *in, const Node *n)
{
	bool truth = false;
	switch (n->kind) {
	case N_BLOCK:
		return run_list(in, n);
	case N_DECLARE:
		return declare_variable(in, n) ? FLOW_NEXT : FLOW_FAIL;
	case N_IF:
		if (!test(in, n->a, &truth))
			return FLOW_FAIL;
		if (truth)
			return run_statement(in, n->b);
		return n->c != NULL ? run_statement(in, n->c) : FLOW_NEXT;
	case N_LOOP:
		return run_loop(in, n);
	case N_BREAK:
		return FLOW_BREAK;
	case N_CONTINUE:
		return FLOW_CONTINUE;
	case N_RETURN:
		return run_return(in, n);
	default:
		return run_for_effect(in, n->a) ? FLOW_NEXT : FLOW_FAIL;
	}
}

Flow run_statement(Interp *in, const Node *n)
{
	if (!deeper(in, n->line))
		return FLOW_FAIL;
	Flow flow = run_kind(in, n);
	in->depth--;
	return flow;
}

static Variable *new_frame(const Function *fn)
{
	Variable *frame = must_alloc((size_t)fn->slot_count * sizeof *frame);
	for (int i = 0; i < fn->slot_count; i++)
		frame[i] = (Variable){.v = value_void()};
	return frame;
}

static void free_frame(const Function *fn, Variable *frame)
{
	for (int i = 0; i < fn->slot_count; i++)
		value_free(&frame[i].v);
	free(frame);
}

static bool run_function(Interp *in, const Function *fn, Variable *frame, Value *out)
{
	Variable *caller = in->frame;
	bool ok = true;

	in->frame = frame;
	Flow flow = run_statement(in, fn->body);
	in->frame = caller;
	if (flow == FLOW_FAIL)
		ok = false;
	else if (flow == FLOW_RETURN && fn->result != T_VOID)
		ok = value_convert(&in->result, fn->result, in->f, fn->line) ||
		     fail_in(in->f, "the result of %s", fn->name);
	else if (fn->result != T_VOID && fn == in->program->main)
		in->result = value_int(T_I32, 0); /* as in C, if main has no return */
	else if (fn->result != T_VOID)
		ok = fail(in->f, fn->line, "%s ended without a return", fn->name);
	free_frame(fn, frame);
	*out = in->result;
	in->result = value_void();
	return ok;
}

static bool call_function(Interp *in, const Node *n, const Function *fn, Value *out)
{
	size_t count = n->list.count;
	if (count != (size_t)fn->parameter_count)
		return fail(in->f, n->line, "%s: takes %d argument%s, got %zu", fn->name,
		            fn->parameter_count, fn->parameter_count == 1 ? "" : "s", count);
	Variable *frame = new_frame(fn);
	for (size_t i = 0; i < count; i++) {
		const Parameter *p = &fn->parameters[i];
		frame[i].type = p->type;
		bool ok = eval(in, n->list.items[i], &frame[i].v);
		if (ok && !value_convert(&frame[i].v, p->type, in->f, n->line))
			ok = fail_in(in->f, "%s: argument %zu ($%s)", fn->name, i + 1, p->name);
		if (!ok) {
			free_frame(fn, frame);
			return false;
		}
	}
	return run_function(in, fn, frame, out);
}

static bool call_native(Interp *in, const Node *n, Value *out)
{
	size_t count = n->list.count, ready = 0;
	if (!native_check_count(n->native, count, in->f, n->line))
		return false;
	Value *args = must_alloc(count * sizeof *args);
	while (ready < count && eval(in, n->list.items[ready], &args[ready]))
		ready++;
	bool ok = ready == count && native_call(n->native, args, count, in->f, n->line, out);
	for (size_t i = 0; i < ready; i++)
		value_free(&args[i]);
	free(args);
	return ok;
}

/* Finds the function that a call names. If the script has no plugin directive, like the examples of
 * the reference, its first call of a tls function loads the tls plugin. */
static bool resolve(Interp *in, Node *n)
{
	for (const Function *fn = in->program->functions; fn != NULL; fn = fn->next)
		if (strcmp(fn->name, n->name) == 0)
			n->function = fn;
	if (n->function != NULL || (n->native = builtin_find(n->name)) != NULL ||
	    (n->native = plugin_find(n->name)) != NULL)
		return true;
	if (strncmp(n->name, "tls.", 4) != 0)
		return fail(in->f, n->line, "unknown function %s", n->name);
	if (plugin_is_loaded())
		return fail(in->f, n->line, "the tls plugin has no function %s", n->name);
	if (in->program->directives != NULL)
		return fail(in->f, n->line, "%s: the script loads no tls plugin", n->name);
	return plugin_load(in->script, "TlsPlugin", in->f, n->line) && resolve(in, n);
}

bool eval_call(Interp *in, Node *n, Value *out)
{
	if (n->function == NULL && n->native == NULL && !resolve(in, n))
		return false;
	return n->function != NULL ? call_function(in, n, n->function, out) :
	                             call_native(in, n, out);
}

static bool run_main(Interp *in, int *status)
{
	const Function *main = in->program->main;
	Value result;
	bool ok = run_function(in, main, new_frame(main), &result);

	if (ok && result.type == T_I32 && (result.u.i < 0 || result.u.i > 255))
		ok = fail(in->f, main->line,
			"main returned %" PRId64 "; an exit status is 0 to 255",
		          result.u.i);
	if (ok && result.type == T_I32)
		*status = (int)result.u.i;
	value_free(&result);
	return ok;
}

bool run_program(const char *script, const Program *program, int *status, Failure *f)
{
	Interp in = {.script = script, .program = program, .f = f, .result = value_void()};
	bool ok = true;

	*status = 0;
	for (const Directive *d = program->directives; d != NULL && ok; d = d->next)
		ok = plugin_load(script, d->path, f, d->line);
	ok = ok && run_main(&in, status);
	plugin_unload();
	return ok;
}
