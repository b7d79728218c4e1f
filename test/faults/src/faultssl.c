/*
 * The orders of faultssl, and the faults themselves. See README.md for the form of orders.
 *
 * The file of orders is opened when the library is loaded, and read again at every call, so that
 * a running process can get orders. After a change of the file, all counts begin again. One lock
 * guards orders and counts. No fault happens under the lock.
 */
#define _GNU_SOURCE
#include "faultssl.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_TEXT = 4096, MOST_ORDERS = 16, MOST_FUNCTIONS = 256 };

/* How often one function was called. An order for all functions has many of these counts. */
struct count {
	const char *function; /* its name; a wrapper always passes the same pointer */
	unsigned long calls;
};

struct order {
	char function[64]; /* or "*" */
	unsigned long nth; /* the number of the call */
	int onward;        /* the order is also for all later calls */
	char what[64];     /* the fault */
	struct count counts[MOST_FUNCTIONS];
};

static int orders_fd = -1;
static pid_t self;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the variables below */
static char text[MOST_TEXT];
static size_t text_len;
static struct order orders[MOST_ORDERS];
static int order_count;

__attribute__((constructor)) static void load(void)
{
	Dl_info info;
	char path[4096];

	self = getpid();
	if (dladdr((void *)orders, &info) && info.dli_fname &&
	    snprintf(path, sizeof path, "%s.orders", info.dli_fname) < (int)sizeof path)
		orders_fd = open(path, O_RDONLY | O_CLOEXEC);
}

static void die(const char *why, const char *what)
{
	fprintf(stderr, "faultssl: %s: %s\n", why, what);
	abort();
}

void *faultssl_real(const char *function)
{
	void *p = dlsym(RTLD_NEXT, function);

	if (!p)
		die("the libraries behind it do not have the function", function);
	return p;
}

/* parse reads text, and fills orders with those for this process. The lock is held. */
static void parse(void)
{
	static char copy[MOST_TEXT + 1];
	char *rest = copy, *line;

	memcpy(copy, text, text_len);
	copy[text_len] = 0;
	memset(orders, 0, sizeof orders);
	order_count = 0;
	while ((line = strsep(&rest, "\n"))) {
		struct order *o = &orders[order_count];
		char who[16], nth[24], *end;
		int fields = sscanf(line, "%15s %63s %23s %63s", who, o->function, nth, o->what);

		if (fields < 1 || who[0] == '#' || who[0] == 0)
			continue;
		if (fields != 4)
			die("not an order", line);
		if (strcmp(who, "*") != 0 && atol(who) != (long)self)
			continue;
		o->nth = strtoul(nth, &end, 10);
		o->onward = *end == '+';
		if (o->nth == 0 || (*end && strcmp(end, "+") != 0))
			die("not the number of a call, such as 1 or 3+", nth);
		if (++order_count == MOST_ORDERS)
			break;
	}
}

/* count adds a call and gives its number. */
static unsigned long count(struct order *o, const char *function)
{
	for (struct count *c = o->counts; c < o->counts + MOST_FUNCTIONS; c++) {
		if (!c->function)
			c->function = function;
		if (c->function == function)
			return ++c->calls;
	}
	return 0;
}

/* refresh parses the orders again if the file has changed. Another process may be writing it, so a
 * new text counts only if two reads in a row give the same text. The lock is held. */
static void refresh(void)
{
	static char now[2][MOST_TEXT];

	for (int turn = 0;; turn = !turn) {
		ssize_t n = pread(orders_fd, now[turn], sizeof now[turn], 0);

		if (n < 0 || ((size_t)n == text_len && memcmp(now[turn], text, text_len) == 0))
			return;
		if (pread(orders_fd, now[!turn], sizeof now[!turn], 0) == n &&
			memcmp(now[0], now[1], (size_t)n) == 0) {
			memcpy(text, now[0], (size_t)n);
			text_len = (size_t)n;
			parse();
			return;
		}
	}
}

/* due returns 1 if an order fits this call of the function, else 0. It copies the order's fault to
 * what. It sets *call to the call's number if the log must get a line, else to 0. */
static int due(const char *function, char *what, size_t size, unsigned long *call)
{
	int found = 0;

	if (orders_fd < 0)
		return 0;
	pthread_mutex_lock(&lock);
	refresh();
	for (int i = 0; i < order_count; i++) {
		struct order *o = &orders[i];

		if (strcmp(o->function, "*") != 0 && strcmp(o->function, function) != 0)
			continue;
		unsigned long calls = count(o, function);
		if (found || !(calls == o->nth || (o->onward && calls > o->nth)))
			continue;
		found = 1;
		snprintf(what, size, "%s", o->what);
		*call = calls == o->nth ? calls : 0; /* of "3+" only call 3 is logged */
	}
	pthread_mutex_unlock(&lock);
	return found;
}

/* bad_text returns a string such as a faulty library may return. */
static intptr_t bad_text(const char *which)
{
	enum { HUGE_LEN = 3 << 20 };
	static const char control[] = "\x01\x1b[2J\r\n\"\\{}\xff\xfe\xc3(\x7f";
	long page = sysconf(_SC_PAGESIZE);

	if (strcmp(which, "control") == 0)
		return (intptr_t)control;
	if (strcmp(which, "huge") == 0) {
		char *p = malloc(HUGE_LEN + 1);
		if (!p)
			die("no memory for", which);
		memset(p, 'A', HUGE_LEN);
		p[HUGE_LEN] = 0;
		return (intptr_t)p;
	}
	if (strcmp(which, "unterminated") == 0) { /* a full page, and no memory after it */
		char *p = mmap(NULL, (size_t)(2 * page), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED || munmap(p + page, (size_t)page) != 0)
			die("no memory for", which);
		memset(p, 'A', (size_t)page);
		return (intptr_t)p;
	}
	die("no such text", which);
	return 0;
}

/* result reads the value of return= and instead=. */
static void result(struct fault *f, const char *value)
{
	char *end;

	if (value[0] >= 'a' && strcmp(value, "more") != 0) {
		f->value = bad_text(value);
		return;
	}
	if (strcmp(value, "more") == 0) {
		f->more = 1;
		f->value = 1;
		return;
	}
	errno = 0;
	f->value = (intptr_t)strtoll(value, &end, 0);
	if (*end || !*value || errno)
		die("no such value", value);
}

struct fault faultssl_next(const char *function)
{
	struct fault f = { GO_ON, 0, 0 };
	char what[64];
	unsigned long call = 0;
	int saved = errno;

	if (due(function, what, sizeof what, &call)) {
		if (call) /* a line for tlsd's log, in one write(2) */
			dprintf(STDERR_FILENO,
				"{\"level\":\"info\",\"msg\":\"faultssl\",\"pid\":%ld,"
		"\"function\":\"%s\",\"call\":%lu,\"fault\":\"%s\"}\n",
			        (long)self, function, call, what);
		if (strcmp(what, "segv") == 0) {
			*(volatile int *)8 = 1;
		} else if (strcmp(what, "abort") == 0) {
			abort();
		} else if (strcmp(what, "hang") == 0) {
			for (;;)
				pause();
		} else if (strncmp(what, "return=", 7) == 0) {
			f.kind = RETURN;
			result(&f, what + 7);
		} else if (strncmp(what, "instead=", 8) == 0) {
			f.kind = REPLACE;
			result(&f, what + 8);
		} else if (strncmp(what, "errors=", 7) == 0) {
			f.kind = STALE;
			result(&f, what + 7);
		} else if (strncmp(what, "short=", 6) == 0) {
			f.kind = SHORTEN;
			result(&f, what + 6);
		} else if (strcmp(what, "note") != 0) {
			die("no such fault", what);
		}
	}
	errno = saved;
	return f;
}

void faultssl_stale(intptr_t n)
{
	enum { LIB_SSL = 20, CERTIFICATE_VERIFY_FAILED = 134 };
	void (*put)(int, int, int, const char *, int);
	void (*make)(void);
	void (*set)(int, int, const char *, ...);
	int saved = errno;

	*(void **)&put = dlsym(RTLD_NEXT, "ERR_put_error"); /* up to 1.1.1 */
	*(void **)&make = dlsym(RTLD_NEXT, "ERR_new");
	*(void **)&set = dlsym(RTLD_NEXT, "ERR_set_error");
	if (!put && !(make && set))
		die("no function that leaves errors", "ERR_put_error, ERR_new, ERR_set_error");
	for (; n > 0; n--) {
		if (set) {
			make();
			set(LIB_SSL, CERTIFICATE_VERIFY_FAILED, NULL);
		} else {
			put(LIB_SSL, 0, CERTIFICATE_VERIFY_FAILED, __FILE__, __LINE__);
		}
	}
	errno = saved;
}
