/*
 * ops.c - the binary operators
 *
 * If two numbers have different types, the narrower one is converted. From narrow to wide the types
 * are i32, i64 and double. If a result does not fit its type, that is an error. Division by zero is
 * an error, also of doubles.
 */
#include "lexer.h"

#include <inttypes.h>
#include <string.h>

static const char *op_text(int op, char buf[3])
{
	buf[0] = (char)(op & 0xff);
	buf[1] = (char)(op >> 8);
	buf[2] = '\0';
	return buf;
}

static bool is_comparison(int op)
{
	return op == '<' || op == '>' || op == OP2('<', '=') || op == OP2('>', '=') ||
	       op == OP2('=', '=') || op == OP2('!', '=');
}

/* Carries out the comparison op. order is negative if the left value is less than the right one,
 * 0 if they are equal, and positive if the left one is greater. */
static bool compare(int op, int order)
{
	switch (op) {
	case '<':
		return order < 0;
	case '>':
		return order > 0;
	case OP2('<', '='):
		return order <= 0;
	case OP2('>', '='):
		return order >= 0;
	case OP2('=', '='):
		return order == 0;
	default:
		return order != 0;
	}
}

static bool binary_bytes(int op, Value *a, const Value *b, Failure *f, int line)
{
	char buf[3];
	if (op == '+')
		return value_append(a, b, f, line);
	if (op != OP2('=', '=') && op != OP2('!', '='))
		return fail(f, line, "%s does not work on %ss", op_text(op, buf),
			type_name(a->type));
	bool same = a->u.b->len == b->u.b->len &&
	            memcmp(a->u.b->data, b->u.b->data, a->u.b->len) == 0;
	value_free(a);
	*a = value_int(T_I32, same == (op == OP2('=', '=')));
	return true;
}

static bool binary_double(int op, Value *a, double x, double y, Failure *f, int line)
{
	if (is_comparison(op)) {
		/* NaN is not equal to, less than or greater than anything. */
		bool ordered = x < y || x > y || x == y;
		bool truth = ordered ? compare(op, (x > y) - (x < y)) : op == OP2('!', '=');
		*a = value_int(T_I32, truth);
		return true;
	}
	switch (op) {
	case '+':
		x += y;
		break;
	case '-':
		x -= y;
		break;
	case '*':
		x *= y;
		break;
	case '/':
		if (y == 0)
			return fail(f, line, "division by zero");
		x /= y;
		break;
	default:
		return fail(f, line, "%% needs integers, got a double");
	}
	*a = value_double(x);
	return true;
}

static bool binary_int(int op, Type type, Value *a, int64_t x, int64_t y, Failure *f, int line)
{
	int64_t r = 0;
	bool over = false;

	if (is_comparison(op)) {
		*a = value_int(T_I32, compare(op, (x > y) - (x < y)));
		return true;
	}
	if ((op == '/' || op == '%') && y == 0)
		return fail(f, line, "division by zero");
	switch (op) {
	case '+':
		over = __builtin_add_overflow(x, y, &r);
		break;
	case '-':
		over = __builtin_sub_overflow(x, y, &r);
		break;
	case '*':
		over = __builtin_mul_overflow(x, y, &r);
		break;
	case '/':
		over = x == INT64_MIN && y == -1;
		r = over ? 0 : x / y;
		break;
	default:
		r = y == -1 ? 0 : x % y; /* INT64_MIN % -1 traps */
		break;
	}
	if (over || (type == T_I32 && (r < INT32_MIN || r > INT32_MAX)))
		return fail(f, line, "%s overflow: %" PRId64 " %c %" PRId64,
			type_name(type), x, op, y);
	*a = value_int(type, r);
	return true;
}

static double as_double(const Value *v)
{
	return v->type == T_DOUBLE ? v->u.d : (double)v->u.i;
}

bool value_binary(int op, Value *a, const Value *b, Failure *f, int line)
{
	char buf[3];
	if (type_is_bytes(a->type) && a->type == b->type)
		return binary_bytes(op, a, b, f, line);
	if (!type_is_number(a->type) || !type_is_number(b->type))
		return fail(f, line, "%s does not work on %s and %s", op_text(op, buf),
		            type_phrase(a->type), type_phrase(b->type));
	if (a->type == T_DOUBLE || b->type == T_DOUBLE)
		return binary_double(op, a, as_double(a), as_double(b), f, line);
	Type wider = a->type == T_I64 || b->type == T_I64 ? T_I64 : T_I32;
	return binary_int(op, wider, a, a->u.i, b->u.i, f, line);
}
