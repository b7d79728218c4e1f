/*
 * parser.c - parses plugin directives and functions; has the helpers of the parser's other files
 *
 * parser.h describes the functions.
 */
#include "parser.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SLOTS 1000 /* variables in one function */

Node *new_node(Parser *p, NodeKind kind, int line)
{
	Node *n = arena_alloc(p->arena, sizeof *n);
	n->kind = kind;
	n->line = line;
	n->depth = 1;
	return n;
}

static bool under(Parser *p, Node *n, const Node *child)
{
	if (child != NULL && child->depth >= n->depth)
		n->depth = child->depth + 1;
	if (n->depth > MAX_TREE_DEPTH)
		return fail(p->f, n->line, "more than %d levels inside of each other",
			MAX_TREE_DEPTH);
	return true;
}

Node *with_children(Parser *p, Node *n, Node *a, Node *b, Node *c, Node *d)
{
	n->a = a;
	n->b = b;
	n->c = c;
	n->d = d;
	return under(p, n, a) && under(p, n, b) && under(p, n, c) && under(p, n, d) ? n : NULL;
}

bool add_child(Parser *p, Node *n, Node *child)
{
	NodeList *l = &n->list;
	if (child == NULL)
		return false;
	if (l->count == l->room) {
		size_t room = l->room > 0 ? 2 * l->room : 4;
		Node **items = arena_alloc(p->arena, room * sizeof *items);
		if (l->count > 0)
			memcpy(items, l->items, l->count * sizeof *items);
		l->items = items;
		l->room = room;
	}
	l->items[l->count++] = child;
	return under(p, n, child);
}

bool enter(Parser *p)
{
	if (p->depth == MAX_TREE_DEPTH)
		return fail(p->f, p->t->line, "more than %d levels inside of each other",
		            MAX_TREE_DEPTH);
	p->depth++;
	return true;
}

bool is_op(const Parser *p, int op)
{
	return p->t->kind == TOK_OP && p->t->op == op;
}

bool is_word(const Parser *p, const char *word)
{
	return p->t->kind == TOK_WORD && strcmp(p->t->text, word) == 0;
}

bool accept_word(Parser *p, const char *word)
{
	bool yes = is_word(p, word);
	p->t += yes;
	return yes;
}

bool accept_op(Parser *p, int op)
{
	bool yes = is_op(p, op);
	p->t += yes;
	return yes;
}

bool expect_op(Parser *p, int op, const char *preceding)
{
	if (accept_op(p, op))
		return true;
	/* If a sign is missing, the failure names the line of the token before it. */
	int line = p->t > p->first ? p->t[-1].line : p->t->line;
	return fail(p->f, line, "expected %c after %s, got %s", op, preceding, describe(p));
}

const char *describe(const Parser *p)
{
	const Token *t = p->t;
	char *text;
	switch (t->kind) {
	case TOK_END:
		return "the end of the script";
	case TOK_STRING:
		return "a string";
	case TOK_NUMBER:
		return "a number";
	case TOK_WORD:
		return t->text;
	case TOK_VAR:
		text = format_text("$%s", t->text);
		break;
	default:
		text = format_text("%c%c", t->op & 0xff, t->op >> 8);
		break;
	}
	const char *kept = arena_text(p->arena, text, strlen(text));
	free(text);
	return kept;
}

bool parse_type(const Parser *p, Type *type)
{
	/* The blob of blob.FromText is no type. t[1] exists, because the last token is TOK_END. */
	if (p->t->kind == TOK_WORD && p->t[1].kind == TOK_OP && p->t[1].op == '.')
		return false;
	for (Type t = T_VOID; t <= T_BLOB; t++) {
		if (is_word(p, type_name(t))) {
			*type = t;
			return true;
		}
	}
	return false;
}

Local *find_local(const Parser *p, const char *name)
{
	Local *l = p->place.locals;
	while (l != NULL && strcmp(l->name, name) != 0)
		l = l->outer;
	return l;
}

bool declare(Parser *p, const char *name, int line, int *slot)
{
	Local *old = find_local(p, name);
	if (old != NULL && old->block == p->place.block)
		return fail(p->f, line, "$%s is already declared here", name);
	Function *fn = p->place.function;
	if (fn->slot_count == MAX_SLOTS)
		return fail(p->f, line, "more than %d variables in one function", MAX_SLOTS);
	Local *l = arena_alloc(p->arena, sizeof *l);
	*l = (Local){.outer = p->place.locals, .name = name, .slot = fn->slot_count++,
	             .block = p->place.block};
	p->place.locals = l;
	*slot = l->slot;
	return true;
}

static bool directive(Parser *p, Directive ***tail)
{
	int line = p->t++->line;
	if (p->t->kind != TOK_STRING)
		return fail(p->f, line, "plugin needs a path in quotes, got %s", describe(p));
	const Bytes *path = p->t->value.u.b;
	if (path->len == 0 || strlen(path->data) != path->len)
		return fail(p->f, line, "the plugin's path is empty or has a zero byte");
	Directive *d = arena_alloc(p->arena, sizeof *d);
	d->path = path->data;
	d->line = line;
	**tail = d;
	*tail = &d->next;
	p->t++;
	return expect_op(p, ';', "the plugin's path");
}

static bool parameters(Parser *p, Function *fn)
{
	int slot;
	if (accept_op(p, ')'))
		return true;
	do {
		Type type;
		if (!parse_type(p, &type) || type == T_VOID)
			return fail(p->f, p->t->line, "%s: expected a parameter's type, got %s",
				fn->name,
			            describe(p));
		p->t++;
		if (p->t->kind != TOK_VAR)
			return fail(p->f, p->t->line, "%s: expected a parameter's name, got %s",
				fn->name,
			            describe(p));
		if (fn->parameter_count == MAX_PARAMETERS)
			return fail(p->f, p->t->line, "%s has more than %d parameters", fn->name,
			            MAX_PARAMETERS);
		if (!declare(p, p->t->text, p->t->line, &slot))
			return false;
		fn->parameters[fn->parameter_count++] = (Parameter){p->t->text, type};
		p->t++;
	} while (accept_op(p, ','));
	return expect_op(p, ')', "the parameters");
}

static bool function(Parser *p, Type result)
{
	Place outside = p->place;
	Function *fn = arena_alloc(p->arena, sizeof *fn);
	fn->result = result;
	fn->line = p->t->line;
	p->t++; /* the type */
	fn->name = p->t->text;
	p->t += 2; /* the name and ( */
	for (Function *old = p->program->functions; old != NULL; old = old->next)
		if (strcmp(old->name, fn->name) == 0)
			return fail(p->f, fn->line, "%s is already defined in line %d",
				fn->name, old->line);
	fn->next = p->program->functions;
	p->program->functions = fn;
	p->place = (Place){.function = fn};
	if (!parameters(p, fn) || !expect_op(p, '{', "the parameters"))
		return false;
	fn->body = parse_block(p);
	p->place = outside;
	if (strcmp(fn->name, "main") != 0)
		return fn->body != NULL;
	if (fn->parameter_count > 0 || (result != T_VOID && result != T_I32))
		return fail(p->f, fn->line, "main must be void main() or i32 main()");
	p->program->main = fn;
	return fn->body != NULL;
}

bool parse(Arena *arena, const Token *tokens, Program *program, Failure *f)
{
	Function *bare = arena_alloc(arena, sizeof *bare);
	Parser p = {.arena = arena, .f = f, .first = tokens, .t = tokens, .program = program,
	            .place = {.function = bare}};
	Directive **tail = &program->directives;

	bare->name = "the script";
	bare->body = new_node(&p, N_BLOCK, 1);
	while (p.t->kind != TOK_END) {
		Type type;
		bool ok;
		if (is_word(&p, "plugin"))
			ok = directive(&p, &tail);
		else if (parse_type(&p, &type) && p.t[1].kind == TOK_WORD &&
			p.t[2].kind == TOK_OP &&
		         p.t[2].op == '(')
			ok = function(&p, type);
		else
			ok = parse_statement_into(&p, bare->body);
		if (!ok)
			return false;
	}
	if (program->main == NULL)
		program->main = bare;
	else if (bare->body->list.count > 0)
		return fail(f, bare->body->list.items[0]->line,
		            "a script with main has no statements outside of functions");
	return true;
}
