/*
 * limits.c - the limits of processes (getrlimit(2)). A private tlsd inherits them from the host.
 */
#define _POSIX_C_SOURCE 200809L
#include <sys/resource.h>

#include "find.h"
#include "text.h"

enum { USUAL_STACK = 8 << 20 };

/* The hard limits that a tlsd needs to serve other programs well. Only root can raise them, so they
 * are checked before the start. */
static const struct need {
	int limit;
	rlim_t least;
	const char *what;
} needs[] = {
	{ RLIMIT_CPU, 3600, "the seconds of CPU time (ulimit -Ht)" },
	{ RLIMIT_NOFILE, 256, "open files (ulimit -Hn)" },
	{ RLIMIT_FSIZE, 16 << 20, "the size of files in bytes (ulimit -Hf)" },
	{ RLIMIT_AS, 1 << 30, "the bytes of address space (ulimit -Hv)" },
	{ RLIMIT_DATA, 256 << 20, "the bytes of data (ulimit -Hd)" },
};

void raise_limits(void)
{
	struct rlimit limit;

	for (int i = 0; i < (int)RLIM_NLIMITS; i++) {
		if (getrlimit(i, &limit) < 0)
			continue;
		/* Each soft limit becomes the hard limit, with two exceptions. tlsd writes no core
		 * file. The stack is raised to the usual size only, because an unlimited stack
		 * would change the layout of tlsd's memory. */
		if (i == RLIMIT_CORE)
			limit.rlim_cur = 0;
		else if (i != RLIMIT_STACK)
			limit.rlim_cur = limit.rlim_max;
		else if (limit.rlim_cur < USUAL_STACK)
			limit.rlim_cur = limit.rlim_max < USUAL_STACK ? limit.rlim_max :
									 USUAL_STACK;
		setrlimit(i, &limit);
	}
}

bool limits_suffice(bool log, char why[TRIED_BYTES])
{
	struct rlimit limit;

	for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
		const struct need *need = &needs[i];

		if ((need->limit == RLIMIT_FSIZE && !log) || getrlimit(need->limit, &limit) < 0 ||
		    limit.rlim_max >= need->least)
			continue;
		text_add(why, TRIED_BYTES, "this process has a hard limit of %llu for %s; tlsd "
			 "would inherit this limit, but needs %llu, because tlsd serves other "
			 "programs too; start tlsd from a process with a higher limit",
			 (unsigned long long)limit.rlim_max, need->what,
			 (unsigned long long)need->least);
		return false;
	}
	return true;
}
