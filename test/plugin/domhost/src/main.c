/*
 * main.c - domhost: a stand-in for the DominScript interpreter
 *
 * Exit status: what main returned; 1 after a runtime error; 2 for a wrong
 * command line, a script that cannot be read, or a syntax error. Errors of the script are one
 * line on standard error: FILE:LINE: reason.
 */
#include "interp.h"
#include "lexer.h"
#include "parser.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SCRIPT ((size_t)16 << 20)

enum { STATUS_RUNTIME = 1, STATUS_USAGE = 2 };

static const char usage[] =
	"usage: domhost [-D NAME=VALUE]... SCRIPT.dom\n"
	"\n"
	"Runs a DominScript script, as far as tests of the tls plugin need it.\n"
	"\n"
	"  -D NAME=VALUE  replaces the script's #define NAME; -D NAME means NAME=1.\n"
	"                 A string needs its quotes: -D 'HOST=\"localhost\"'\n"
	"  --help         prints this\n"
	"\n"
	"plugin \"PATH\"; loads PATH.so from the script's folder. If there is no such\n"
	"file, the last part of PATH is looked for in the folder $DOMHOST_PLUGIN_PATH,\n"
	"then in domhost's own folder. The print and blob plugins are built in.\n"
	"\n"
	"Exit status: what main returned; 1 after a runtime error; 2 for a wrong command\n"
	"line or a script that cannot be read or parsed. An error is one line on\n"
	"standard error, FILE:LINE: reason.\n";

typedef struct {
	const char *script;
	Define *defines;
	bool help;
} Options;

static bool add_define(Arena *arena, Options *o, const char *text, Failure *f)
{
	const char *equals = strchr(text, '=');
	size_t len = equals != NULL ? (size_t)(equals - text) : strlen(text);
	if (!is_name(text, len))
		return fail(f, 0, "-D %s: needs NAME=VALUE, with a name of letters, digits and _",
			text);
	Define *d = arena_alloc(arena, sizeof *d);
	d->name = arena_text(arena, text, len);
	d->text = equals != NULL ? equals + 1 : "1";
	d->next = o->defines; /* of two definitions of a name, the later one is found first */
	o->defines = d;
	return true;
}

static bool read_options(Arena *arena, char **argv, Options *o, Failure *f)
{
	bool options = true;
	for (char **arg = argv + 1; *arg != NULL; arg++) {
		if (options && strcmp(*arg, "--") == 0) {
			options = false;
		} else if (options && (strcmp(*arg, "--help") == 0 || strcmp(*arg, "-h") == 0)) {
			o->help = true;
		} else if (options && strncmp(*arg, "-D", 2) == 0) {
			const char *text = (*arg)[2] != '\0' ? *arg + 2 : *++arg;
			if (text == NULL)
				return fail(f, 0, "-D needs NAME=VALUE");
			if (!add_define(arena, o, text, f))
				return false;
		} else if (options && (*arg)[0] == '-') {
			return fail(f, 0, "unknown option %s; see domhost --help", *arg);
		} else if (o->script != NULL) {
			return fail(f, 0, "one script at a time, got %s and %s", o->script, *arg);
		} else {
			o->script = *arg;
		}
	}
	return o->help || o->script != NULL || fail(f, 0, "which script? See domhost --help");
}

/* Reads a whole file into the arena. */
static bool read_script(Arena *arena, const char *path, char **text, size_t *len, Failure *f)
{
	FILE *file = fopen(path, "rb");
	if (file == NULL)
		return fail(f, 0, "cannot open %s: %s", path, strerror(errno));
	char *buf = NULL;
	size_t room = 0, used = 0, got;
	do {
		room = room > 0 ? 2 * room : 64 << 10;
		buf = must_realloc(buf, room);
		errno = 0;
		got = fread(buf + used, 1, room - used, file);
		used += got;
	} while (used == room && used <= MAX_SCRIPT);
	bool ok = true;
	if (ferror(file))
		ok = fail(f, 0, "cannot read %s: %s", path, strerror(errno));
	else if (used > MAX_SCRIPT)
		ok = fail(f, 0, "%s is larger than %zu bytes", path, MAX_SCRIPT);
	else
		*text = arena_text(arena, buf, *len = used);
	fclose(file);
	free(buf);
	return ok;
}

/* Prints one line: control characters in the reason become blanks. */
static void print_failure(const char *script, const Failure *f)
{
	fflush(stdout);
	for (char *c = f->text; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
	if (f->line > 0)
		fprintf(stderr, "%s:%d: %s\n", script, f->line, f->text);
	else
		fprintf(stderr, "domhost: %s\n", f->text);
}

static int run_script(Arena *arena, const Options *o, Failure *f)
{
	char *text = NULL;
	size_t len = 0;
	Tokens tokens = {0};
	Program program = {0};
	int status = 0;

	bool ready = read_script(arena, o->script, &text, &len, f) &&
	             lex(arena, text, len, o->defines, &tokens, f) &&
	             parse(arena, tokens.items, &program, f);
	free(tokens.items);
	if (!ready)
		return STATUS_USAGE;
	if (!run_program(o->script, &program, &status, f))
		return STATUS_RUNTIME;
	if (fflush(stdout) != 0) {
		fail(f, 0, "standard output: %s", strerror(errno));
		return STATUS_RUNTIME;
	}
	return status;
}

int main(int argc, char **argv)
{
	Arena arena = {0};
	Failure f = {0};
	Options o = {0};
	int status = STATUS_USAGE;

	(void)argc;
	/* A line that a script prints is seen at once, also through a pipe. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (read_options(&arena, argv, &o, &f)) {
		if (o.help)
			status = fputs(usage, stdout) >= 0 && fflush(stdout) == 0 ? 0
				: STATUS_RUNTIME;
		else
			status = run_script(&arena, &o, &f);
	}
	if (f.text != NULL)
		print_failure(o.script, &f);
	failure_free(&f);
	arena_free(&arena);
	return status;
}
