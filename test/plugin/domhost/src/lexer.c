/* lexer.c - see lexer.h */
#include "lexer.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 500000 /* also stops definitions that expand to ever more tokens */
#define MAX_EXPANSION 64   /* definitions inside of definitions */

typedef struct {
	Arena *arena;
	Define *fixed, *defines;
	Tokens *tokens;
	Failure *f;
	int line;
	int expansion; /* how many definitions are being expanded, one inside of the other */
} Lexer;

typedef struct {
	const char *p, *end;
} Text;

static bool lex_text(Lexer *l, Text t);

static bool name_start(char c)
{
	return isalpha((unsigned char)c) || c == '_';
}

static bool name_part(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

bool is_name(const char *text, size_t len)
{
	if (len == 0 || !name_start(text[0]))
		return false;
	for (size_t i = 1; i < len; i++)
		if (!name_part(text[i]))
			return false;
	return true;
}

static bool add(Lexer *l, Token t)
{
	Tokens *ts = l->tokens;
	if (ts->count == MAX_TOKENS)
		return fail(l->f, l->line, "the script is longer than %d words and signs",
			MAX_TOKENS);
	if (ts->count == ts->room) {
		ts->room = ts->room > 0 ? 2 * ts->room : 256;
		ts->items = must_realloc(ts->items, ts->room * sizeof *ts->items);
	}
	ts->items[ts->count++] = t;
	return true;
}

/* Says whether the rest of the text begins with s. */
static bool at(const Text *t, const char *s)
{
	size_t n = strlen(s);
	return (size_t)(t->end - t->p) >= n && memcmp(t->p, s, n) == 0;
}

/* Counts a line break, but only in the script itself. The text of a definition has the line number
 * of the place where it is used. */
static void newline(Lexer *l)
{
	if (l->expansion == 0)
		l->line++;
}

static bool skip_comment(Lexer *l, Text *t)
{
	int start = l->line;
	if (at(t, "//")) {
		while (t->p < t->end && *t->p != '\n')
			t->p++;
		return true;
	}
	for (t->p += 2; t->p < t->end; t->p++) {
		if (at(t, "*/")) {
			t->p += 2;
			return true;
		}
		if (*t->p == '\n')
			newline(l);
	}
	return fail(l->f, start, "the comment has no end");
}

static bool escape(Lexer *l, Text *t, char *out)
{
	static const char names[] = "nrt\\\"'0", bytes[] = "\n\r\t\\\"'\0";
	char c = t->p < t->end ? *t->p++ : '\0';
	const char *known = c != '\0' ? strchr(names, c) : NULL;

	if (c == '0' && t->p < t->end && isdigit((unsigned char)*t->p))
		return fail(l->f, l->line, "octal escapes are not known; write \\xNN");
	if (known != NULL) {
		*out = bytes[known - names];
		return true;
	}
	if (c != 'x' && isprint((unsigned char)c))
		return fail(l->f, l->line, "unknown escape \\%c", c);
	if (c != 'x')
		return fail(l->f, l->line, "nothing to escape follows the \\");
	int value = 0, digits = 0;
	for (; digits < 2 && t->p < t->end && isxdigit((unsigned char)*t->p); digits++, t->p++) {
		char digit[2] = {*t->p, '\0'};
		value = 16 * value + (int)strtol(digit, NULL, 16);
	}
	if (digits == 0)
		return fail(l->f, l->line, "\\x needs one or two hexadecimal digits");
	*out = (char)value;
	return true;
}

static bool lex_string(Lexer *l, Text *t)
{
	int start = l->line;
	size_t len = 0;
	char *buf = must_alloc((size_t)(t->end - t->p));
	bool ok = true;

	t->p++;
	while (ok && t->p < t->end && *t->p != '"') {
		char c = *t->p++;
		if (c == '\\')
			ok = escape(l, t, &c);
		else if (c == '\n')
			newline(l);
		buf[len++] = c;
	}
	if (ok && t->p == t->end)
		ok = fail(l->f, start, "the string has no closing quote");
	t->p++;
	if (ok)
		ok = add(l, (Token){.kind = TOK_STRING, .line = start,
		                    .value = value_literal(l->arena, buf, len)});
	free(buf);
	return ok;
}

/* A number with a point or an exponent is a double. Other numbers are i32, or i64 if too large. */
static bool lex_number(Lexer *l, Text *t)
{
	const char *start = t->p;
	bool hex = at(t, "0x") || at(t, "0X");
	while (t->p < t->end && (name_part(*t->p) || *t->p == '.' ||
	                         (!hex && strchr("+-", *t->p) && strchr("eE", t->p[-1]))))
		t->p++;
	char *text = arena_text(l->arena, start, (size_t)(t->p - start)), *end = NULL;
	Token token = {.kind = TOK_NUMBER, .line = l->line};

	errno = 0;
	if (!hex && strpbrk(text, ".eE") != NULL) {
		token.value = value_double(strtod(text, &end));
	} else {
		if (text[0] == '0' && isdigit((unsigned char)text[1]))
			return fail(l->f, l->line, "bad number %s: octal numbers are not known",
				text);
		int64_t i = strtoll(text, &end, hex ? 16 : 10);
		token.value = value_int(i <= INT32_MAX ? T_I32 : T_I64, i);
	}
	if (errno == ERANGE)
		return fail(l->f, l->line, "the number %s is out of range", text);
	if (*end != '\0' || (hex && strlen(text) == 2))
		return fail(l->f, l->line, "bad number %s", text);
	return add(l, token);
}

static Define *find(Define *list, const char *name)
{
	while (list != NULL && strcmp(list->name, name) != 0)
		list = list->next;
	return list;
}

static bool lex_word(Lexer *l, Text *t)
{
	const char *start = t->p;
	while (t->p < t->end && name_part(*t->p))
		t->p++;
	char *name = arena_text(l->arena, start, (size_t)(t->p - start));
	Define *d = find(l->fixed, name);
	if (d == NULL)
		d = find(l->defines, name);
	if (d == NULL)
		return add(l, (Token){.kind = TOK_WORD, .line = l->line, .text = name});
	if (d->busy)
		return fail(l->f, l->line, "#define %s needs itself", name);
	if (l->expansion == MAX_EXPANSION)
		return fail(l->f, l->line,
			"#define %s: more than %d definitions inside of each other",
		            name, MAX_EXPANSION);
	d->busy = true;
	l->expansion++;
	bool ok = lex_text(l, (Text){d->text, d->text + strlen(d->text)});
	l->expansion--;
	d->busy = false;
	return ok;
}

static bool lex_variable(Lexer *l, Text *t)
{
	const char *start = ++t->p;
	while (t->p < t->end && name_part(*t->p))
		t->p++;
	size_t len = (size_t)(t->p - start);
	if (!is_name(start, len))
		return fail(l->f, l->line, "a variable's name must follow $");
	return add(l, (Token){.kind = TOK_VAR, .line = l->line,
	                      .text = arena_text(l->arena, start, len)});
}

static void skip_blanks(Text *t)
{
	while (t->p < t->end && (*t->p == ' ' || *t->p == '\t'))
		t->p++;
}

/* #define NAME text, up to the end of the line. */
static bool lex_define(Lexer *l, Text *t)
{
	t->p++;
	skip_blanks(t);
	if (!at(t, "define") || t->end - t->p < 7 || !strchr(" \t", t->p[6]))
		return fail(l->f, l->line, "after # only define NAME value is known");
	t->p += 6;
	skip_blanks(t);
	const char *name = t->p;
	while (t->p < t->end && name_part(*t->p))
		t->p++;
	size_t len = (size_t)(t->p - name);
	if (!is_name(name, len))
		return fail(l->f, l->line, "#define needs a name of letters, digits and _");
	if (t->p < t->end && !isspace((unsigned char)*t->p))
		return fail(l->f, l->line,
			"#define %.*s: a blank must follow the name (definitions "
		            "take no parameters)", (int)len, name);
	const char *text = t->p;
	while (t->p < t->end && *t->p != '\n')
		t->p++;
	Define *d = arena_alloc(l->arena, sizeof *d);
	d->name = arena_text(l->arena, name, len);
	d->text = arena_text(l->arena, text, (size_t)(t->p - text));
	d->next = l->defines; /* of two definitions of a name, the later one is found first */
	l->defines = d;
	return true;
}

static bool lex_operator(Lexer *l, Text *t)
{
	static const char *const pairs[] = {":=", "==", "!=", "<=", ">=", "&&", "||", "++", "--",
	                                    "+=", "-=", "*=", "/=", "%="};
	char c = *t->p;
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		if (at(t, pairs[i])) {
			t->p += 2;
			return add(l, (Token){.kind = TOK_OP, .line = l->line,
			                      .op = OP2(pairs[i][0], pairs[i][1])});
		}
	}
	if (strchr("(){}[];,.=<>+-*/%!", c) == NULL)
		return isprint((unsigned char)c) ?
		               fail(l->f, l->line, "unknown sign %c", c) :
		               fail(l->f, l->line, "unknown byte 0x%02x", (unsigned char)c);
	t->p++;
	return add(l, (Token){.kind = TOK_OP, .line = l->line, .op = c});
}

static bool lex_text(Lexer *l, Text t)
{
	bool line_start = l->expansion == 0;
	bool ok = true;

	while (ok && t.p < t.end) {
		char c = *t.p;
		if (c == '\n') {
			newline(l);
			line_start = l->expansion == 0;
			t.p++;
			continue;
		}
		if (isspace((unsigned char)c)) {
			t.p++;
			continue;
		}
		if (at(&t, "//") || at(&t, "/*")) {
			ok = skip_comment(l, &t);
			continue;
		}
		if (c == '"')
			ok = lex_string(l, &t);
		else if (c == '$')
			ok = lex_variable(l, &t);
		else if (c == '#' && line_start)
			ok = lex_define(l, &t);
		else if (isdigit((unsigned char)c))
			ok = lex_number(l, &t);
		else if (name_start(c))
			ok = lex_word(l, &t);
		else
			ok = lex_operator(l, &t);
		line_start = false;
	}
	return ok;
}

bool lex(Arena *arena, const char *source, size_t len, Define *fixed, Tokens *tokens, Failure *f)
{
	static const char bom[] = "\xef\xbb\xbf"; /* some editors begin UTF-8 files with it */
	Lexer l = {.arena = arena, .fixed = fixed, .tokens = tokens, .f = f, .line = 1};
	Text t = {source, source + len};

	if (memchr(source, '\0', len) != NULL)
		return fail(f, 1, "the script has a zero byte; it is not a text");
	if (at(&t, bom))
		t.p += 3;
	return lex_text(&l, t) && add(&l, (Token){.kind = TOK_END, .line = l.line});
}
