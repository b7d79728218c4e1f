/*
 * statement.c - the parser's part for statements
 */
#include "parser.h"

static Node *statement(Parser *p);

/* Parses "$name[capacity] = value, ...;" behind the type. Capacity and value are optional. */
static bool declarations(Parser *p, Type type, Node *into)
{
	do {
		Node *n = new_node(p, N_DECLARE, p->t->line), *capacity = NULL, *value = NULL;
		if (p->t->kind != TOK_VAR)
			return fail(p->f, p->t->line, "expected a variable after %s, got %s",
			            type_name(type), describe(p));
		const char *name = p->t->text;
		p->t++;
		if (is_op(p, '[') && !type_is_bytes(type))
			return fail(p->f, n->line, "$%s: only a string or a blob has a capacity",
				name);
		if (accept_op(p, '[') && ((capacity = parse_expression(p)) == NULL ||
		                          !expect_op(p, ']', "the capacity")))
			return false;
		if (accept_op(p, '=') && (value = parse_expression(p)) == NULL)
			return false;
		n->type = type;
		n->name = name;
		if (!declare(p, name, n->line, &n->slot) ||
		    with_children(p, n, capacity, value, NULL, NULL) == NULL ||
		    !add_child(p, into, n))
			return false;
	} while (accept_op(p, ','));
	return expect_op(p, ';', "the declaration");
}

bool parse_statement_into(Parser *p, Node *block)
{
	Type type;
	if (parse_type(p, &type)) {
		if (type == T_VOID)
			return fail(p->f, p->t->line, "a variable cannot be void");
		p->t++;
		return declarations(p, type, block);
	}
	return add_child(p, block, statement(p));
}

Node *parse_block(Parser *p)
{
	Node *n = new_node(p, N_BLOCK, p->t->line);
	Local *outer = p->place.locals;
	int start = p->t[-1].line; /* of the { */

	p->place.block++;
	while (!accept_op(p, '}')) {
		if (p->t->kind == TOK_END) {
			fail(p->f, start, "the { has no }");
			return NULL;
		}
		if (!parse_statement_into(p, n))
			return NULL;
	}
	p->place.block--;
	p->place.locals = outer;
	return n;
}

static Node *expression_statement(Parser *p, Node *e)
{
	return with_children(p, new_node(p, N_EXPRESSION, e->line), e, NULL, NULL, NULL);
}

static Node *condition(Parser *p, const char *after)
{
	if (!expect_op(p, '(', after))
		return NULL;
	Node *n = parse_expression(p);
	return n != NULL && expect_op(p, ')', "the condition") ? n : NULL;
}

static Node *loop_body(Parser *p)
{
	p->place.loop++;
	Node *body = statement(p);
	p->place.loop--;
	return body;
}

static Node *if_statement(Parser *p, int line)
{
	Node *test = condition(p, "if"), *then = NULL, *otherwise = NULL;
	if (test == NULL || (then = statement(p)) == NULL)
		return NULL;
	if (accept_word(p, "else") && (otherwise = statement(p)) == NULL)
		return NULL;
	return with_children(p, new_node(p, N_IF, line), test, then, otherwise, NULL);
}

static Node *while_statement(Parser *p, int line)
{
	Node *test = condition(p, "while"), *body = NULL;
	if (test == NULL || (body = loop_body(p)) == NULL)
		return NULL;
	return with_children(p, new_node(p, N_LOOP, line), NULL, test, NULL, body);
}

/* Parses the start of a for loop, a declaration or an expression, and the semicolon. */
static bool before_loop(Parser *p, Node *into)
{
	Type type;
	if (parse_type(p, &type))
		return parse_statement_into(p, into);
	Node *e = parse_expression(p);
	return e != NULL && expect_op(p, ';', "the start of the loop") &&
	       add_child(p, into, expression_statement(p, e));
}

/* Parses "(start; test; step) body" behind the word for. The loop is the scope of a variable that
 * start declares. */
static Node *for_statement(Parser *p, int line)
{
	Local *outer = p->place.locals;
	Node *start = new_node(p, N_BLOCK, line), *test = NULL, *step = NULL, *body;

	p->place.block++;
	if (!expect_op(p, '(', "for") || (!accept_op(p, ';') && !before_loop(p, start)))
		return NULL;
	if (!is_op(p, ';') && (test = parse_expression(p)) == NULL)
		return NULL;
	if (!expect_op(p, ';', "the condition"))
		return NULL;
	if (!is_op(p, ')') && (step = parse_expression(p)) == NULL)
		return NULL;
	if (!expect_op(p, ')', "the step") || (body = loop_body(p)) == NULL)
		return NULL;
	p->place.block--;
	p->place.locals = outer;
	return with_children(p, new_node(p, N_LOOP, line), start, test, step, body);
}

static Node *jump(Parser *p, NodeKind kind, const char *word, int line)
{
	if (p->place.loop == 0) {
		fail(p->f, line, "%s outside of a loop", word);
		return NULL;
	}
	return expect_op(p, ';', word) ? new_node(p, kind, line) : NULL;
}

static Node *return_statement(Parser *p, int line)
{
	Node *value = NULL;
	Function *fn = p->place.function;
	if (!is_op(p, ';') && (value = parse_expression(p)) == NULL)
		return NULL;
	if (value != NULL && fn->result == T_VOID) {
		fail(p->f, line, "%s returns nothing", fn->name);
		return NULL;
	}
	if (value == NULL && fn->result != T_VOID) {
		fail(p->f, line, "%s must return %s", fn->name, type_phrase(fn->result));
		return NULL;
	}
	Node *n = with_children(p, new_node(p, N_RETURN, line), value, NULL, NULL, NULL);
	return n != NULL && expect_op(p, ';', "return") ? n : NULL;
}

static Node *plain_statement(Parser *p)
{
	int line = p->t->line;
	Type type;
	if (accept_op(p, '{'))
		return parse_block(p);
	if (accept_op(p, ';'))
		return new_node(p, N_BLOCK, line);
	if (accept_word(p, "if"))
		return if_statement(p, line);
	if (accept_word(p, "while"))
		return while_statement(p, line);
	if (accept_word(p, "for"))
		return for_statement(p, line);
	if (accept_word(p, "break"))
		return jump(p, N_BREAK, "break", line);
	if (accept_word(p, "continue"))
		return jump(p, N_CONTINUE, "continue", line);
	if (accept_word(p, "return"))
		return return_statement(p, line);
	if (is_word(p, "else") || is_word(p, "plugin") || parse_type(p, &type)) {
		fail(p->f, line, "%s cannot stand here", p->t->text);
		return NULL;
	}
	Node *e = parse_expression(p);
	if (e == NULL || !expect_op(p, ';', "the statement"))
		return NULL;
	return expression_statement(p, e);
}

static Node *statement(Parser *p)
{
	if (!enter(p))
		return NULL;
	Node *n = plain_statement(p);
	p->depth--;
	return n;
}
