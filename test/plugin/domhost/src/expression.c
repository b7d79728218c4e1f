/*
 * expression.c - the part of the parser for expressions; operators have C's precedence
 */
#include "parser.h"

#include <stdlib.h>
#include <string.h>

static Node *binary_level(Parser *p, int level);

static bool lvalue(const Node *n)
{
	return n->kind == N_VAR || (n->kind == N_INDEX && n->a->kind == N_VAR);
}

static Node *call(Parser *p, const char *name, int line)
{
	Node *n = new_node(p, N_CALL, line);
	n->name = name;
	p->t++; /* ( */
	if (accept_op(p, ')'))
		return n;
	do {
		Node *argument = parse_expression(p);
		if (argument == NULL || !add_child(p, n, argument))
			return NULL;
	} while (accept_op(p, ','));
	return expect_op(p, ')', "the arguments") ? n : NULL;
}

/* name(...) or namespace.name(...) */
static Node *named(Parser *p)
{
	const Token *first = p->t++;
	const char *name = first->text;
	if (accept_op(p, '.')) {
		if (p->t->kind != TOK_WORD) {
			fail(p->f, p->t->line, "expected a function after %s., got %s", name,
				describe(p));
			return NULL;
		}
		char *full = format_text("%s.%s", name, p->t->text);
		name = arena_text(p->arena, full, strlen(full));
		free(full);
		p->t++;
	}
	if (!is_op(p, '(')) {
		fail(p->f, first->line, "unknown word %s (variables begin with $)", name);
		return NULL;
	}
	return call(p, name, first->line);
}

static Node *variable(Parser *p)
{
	Local *local = find_local(p, p->t->text);
	if (local == NULL) {
		fail(p->f, p->t->line, "$%s is not declared", p->t->text);
		return NULL;
	}
	Node *n = new_node(p, N_VAR, p->t->line);
	n->name = local->name;
	n->slot = local->slot;
	p->t++;
	return n;
}

static Node *primary(Parser *p)
{
	Node *n;
	switch (p->t->kind) {
	case TOK_NUMBER:
	case TOK_STRING:
		n = new_node(p, N_LITERAL, p->t->line);
		n->value = p->t->value;
		p->t++;
		return n;
	case TOK_VAR:
		return variable(p);
	case TOK_WORD:
		return named(p);
	default:
		break;
	}
	if (accept_op(p, '(')) {
		n = parse_expression(p);
		return n != NULL && expect_op(p, ')', "the expression") ? n : NULL;
	}
	fail(p->f, p->t->line, "expected an expression, got %s", describe(p));
	return NULL;
}

static Node *step(Parser *p, NodeKind kind, int line, int op, Node *target)
{
	if (!lvalue(target)) {
		fail(p->f, line, "%c%c needs a variable", op, op);
		return NULL;
	}
	Node *n = new_node(p, kind, line);
	n->op = op;
	return with_children(p, n, target, NULL, NULL, NULL);
}

static Node *postfix(Parser *p)
{
	Node *n = primary(p);
	while (n != NULL) {
		int line = p->t->line;
		if (accept_op(p, '.')) {
			if (!is_word(p, "Length")) {
				fail(p->f, line, "expected Length after the dot, got %s",
					describe(p));
				return NULL;
			}
			p->t++;
			n = with_children(p, new_node(p, N_LENGTH, line), n, NULL, NULL, NULL);
		} else if (accept_op(p, '[')) {
			Node *index = parse_expression(p);
			if (index == NULL || !expect_op(p, ']', "the index"))
				return NULL;
			n = with_children(p, new_node(p, N_INDEX, line), n, index, NULL, NULL);
		} else if (accept_op(p, OP2('+', '+'))) {
			n = step(p, N_STEP_AFTER, line, '+', n);
		} else if (accept_op(p, OP2('-', '-'))) {
			n = step(p, N_STEP_AFTER, line, '-', n);
		} else {
			break;
		}
	}
	return n;
}

static Node *unary(Parser *p)
{
	static const struct {
		int op;
		NodeKind kind;
	} prefixes[] = {{'!', N_NOT}, {'-', N_NEGATE}, {OP2('+', '+'), N_STEP},
		{OP2('-', '-'), N_STEP}};
	int line = p->t->line;

	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
		if (!accept_op(p, prefixes[i].op))
			continue;
		if (!enter(p))
			return NULL;
		Node *operand = unary(p);
		p->depth--;
		if (operand == NULL)
			return NULL;
		if (prefixes[i].kind == N_STEP)
			return step(p, N_STEP, line, prefixes[i].op & 0xff, operand);
		return with_children(p, new_node(p, prefixes[i].kind, line), operand, NULL,
			NULL, NULL);
	}
	return postfix(p);
}

/* The binary operators, weakest first; all are left-associative. */
static const int levels[][5] = {
	{OP2('|', '|')},
	{OP2('&', '&')},
	{OP2('=', '='), OP2('!', '=')},
	{'<', '>', OP2('<', '='), OP2('>', '=')},
	{'+', '-'},
	{'*', '/', '%'},
};
enum { LEVELS = sizeof levels / sizeof *levels };

static int operator_of(Parser *p, int level)
{
	for (const int *op = levels[level]; *op != 0; op++)
		if (accept_op(p, *op))
			return *op;
	return 0;
}

static Node *binary_level(Parser *p, int level)
{
	if (level == LEVELS)
		return unary(p);
	Node *left = binary_level(p, level + 1);
	while (left != NULL) {
		int line = p->t->line, op = operator_of(p, level);
		if (op == 0)
			break;
		Node *right = binary_level(p, level + 1);
		if (right == NULL)
			return NULL;
		Node *n = new_node(p, level == 0 ? N_OR : level == 1 ? N_AND : N_BINARY, line);
		n->op = op;
		left = with_children(p, n, left, right, NULL, NULL);
	}
	return left;
}

/* Reads an assignment sign, if there is one. Returns = or := itself, + for +=, or 0 for none. */
static int assignment(Parser *p)
{
	static const char compound[] = "+-*/%";
	if (accept_op(p, '='))
		return '=';
	if (accept_op(p, OP2(':', '=')))
		return OP2(':', '=');
	for (const char *c = compound; *c != '\0'; c++)
		if (accept_op(p, OP2(*c, '=')))
			return *c;
	return 0;
}

Node *parse_expression(Parser *p)
{
	if (!enter(p))
		return NULL;
	Node *left = binary_level(p, 0);
	int line = p->t->line;
	int op = left != NULL ? assignment(p) : 0;
	if (op != 0 && !lvalue(left)) {
		fail(p->f, line, "only a variable or an element of a blob can be assigned to");
		left = NULL;
	} else if (op != 0) {
		Node *right = parse_expression(p);
		Node *n = new_node(p, N_ASSIGN, line);
		n->op = op;
		left = right != NULL ? with_children(p, n, left, right, NULL, NULL) : NULL;
	}
	p->depth--;
	return left;
}
