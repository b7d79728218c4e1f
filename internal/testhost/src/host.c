/*
 * host.c - a host for the plugin, in C. A test sends it commands.
 *
 *	host PLUGIN.so
 *
 * A command is a line with the fields TAG OP ARGUMENT..., with tabs between them. OP is the name of
 * a function of the plugin without "tls_", or a command of the host (see main). With & before OP,
 * the function runs in a new thread. In an argument \t, \n and \\ stand for a tab, a line feed and
 * a backslash, and \N is NULL. In place of the data of Write and WritePlain, the line has the
 * number of bytes. The data itself follows the line.
 *
 * The answer is a line with the fields TAG RESULT LENGTH, and LENGTH bytes after it. After a
 * failure the bytes are the text of tls_LastError. Otherwise they are the data of Read, or the text
 * of a getter (a function that returns a text, such as tls_Version).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tlsplugin.h"

enum { FIELDS = 8, LINE = 64 * 1024 };

static struct {
	__typeof__(&tls_NewClient) NewClient;
	__typeof__(&tls_Handshake) Handshake;
	__typeof__(&tls_Write) Write;
	__typeof__(&tls_Read) Read;
	__typeof__(&tls_Close) Close;
	__typeof__(&tls_Shutdown) Shutdown;
	__typeof__(&tls_Descriptor) Descriptor;
	__typeof__(&tls_SetInsecureSkipVerify) SetInsecureSkipVerify;
	__typeof__(&tls_SetTimeout) SetTimeout;
	__typeof__(&tls_SetStrictWrites) SetStrictWrites;
	__typeof__(&tls_NewServerContext) NewServerContext;
	__typeof__(&tls_Accept) Accept;
	__typeof__(&tls_CloseServerContext) CloseServerContext;
	__typeof__(&tls_SetCaBundle) SetCaBundle;
	__typeof__(&tls_PeerCertSubject) PeerCertSubject;
	__typeof__(&tls_Backend) Backend;
	__typeof__(&tls_Version) Version;
	__typeof__(&tls_SetOption) SetOption;
	__typeof__(&tls_SetCertificate) SetCertificate;
	__typeof__(&tls_Listen) Listen;
	__typeof__(&tls_Wait) Wait;
	__typeof__(&tls_Info) Info;
	__typeof__(&tls_ReadPlain) ReadPlain;
	__typeof__(&tls_WritePlain) WritePlain;
	__typeof__(&tls_ErrorKind) ErrorKind;
	__typeof__(&tls_ErrorCode) ErrorCode;
	__typeof__(&tls_Cancel) Cancel;
	__typeof__(&tls_LastError) LastError;
} tls;

static void *library;
static volatile sig_atomic_t sigchlds;

static void die(const char *what)
{
	fprintf(stderr, "host: %s: %s\n", what, strerror(errno));
	exit(3);
}

/* Returns p, the result of an allocation. Ends the program if p is NULL. */
static void *had(void *p)
{
	if (!p)
		die("memory");
	return p;
}

static void load(const char *path)
{
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		fprintf(stderr, "host: %s\n", dlerror());
		exit(3);
	}
#define LOAD(name) \
	if (!(*(void **)&tls.name = dlsym(library, "tls_" #name))) \
		die("tls_" #name)
	LOAD(NewClient);
	LOAD(Handshake);
	LOAD(Write);
	LOAD(Read);
	LOAD(Close);
	LOAD(Shutdown);
	LOAD(Descriptor);
	LOAD(SetInsecureSkipVerify);
	LOAD(SetTimeout);
	LOAD(SetStrictWrites);
	LOAD(NewServerContext);
	LOAD(Accept);
	LOAD(CloseServerContext);
	LOAD(SetCaBundle);
	LOAD(PeerCertSubject);
	LOAD(Backend);
	LOAD(Version);
	LOAD(SetOption);
	LOAD(SetCertificate);
	LOAD(Listen);
	LOAD(Wait);
	LOAD(Info);
	LOAD(ReadPlain);
	LOAD(WritePlain);
	LOAD(ErrorKind);
	LOAD(ErrorCode);
	LOAD(Cancel);
	LOAD(LastError);
}

static pthread_mutex_t replying = PTHREAD_MUTEX_INITIALIZER; /* locked while answer() writes */

static void answer(const char *tag, int64_t result, const char *data, size_t len)
{
	char head[128];
	struct iovec part[] = { { head, 0 }, { (void *)data, len } };

	part[0].iov_len = (size_t)snprintf(head, sizeof head, "%s\t%" PRId64 "\t%zu\n",
		tag, result, len);
	pthread_mutex_lock(&replying);
	for (int i = 0; i < 2;) {
		ssize_t n = writev(STDOUT_FILENO, part + i, 2 - i);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("write");
		for (; i < 2 && (size_t)n >= part[i].iov_len; i++)
			n -= (ssize_t)part[i].iov_len;
		if (i < 2) {
			part[i].iov_base = (char *)part[i].iov_base + n;
			part[i].iov_len -= (size_t)n;
		}
	}
	pthread_mutex_unlock(&replying);
}

static void reply(const char *tag, int64_t result, const char *text)
{
	answer(tag, result, text, strlen(text));
}

/* Returns a getter's text. The getter's first call gets only the length, its second the text. */
static char *fetch(int64_t (*get)(int64_t, char *, size_t), int64_t handle, int64_t *length)
{
	char *text;

	*length = get(handle, NULL, 0);
	if (*length < 0)
		return NULL;
	text = had(malloc((size_t)*length + 1));
	memset(text, 'X', (size_t)*length + 1);
	if (get(handle, text, (size_t)*length + 1) != *length || strlen(text) != (size_t)*length)
		die("a getter's second call differs from its first");
	return text;
}

static int64_t get_backend(int64_t handle, char *buf, size_t cap)
{
	(void)handle;
	return tls.Backend(buf, cap);
}

static int64_t get_error_kind(int64_t handle, char *buf, size_t cap)
{
	(void)handle;
	return tls.ErrorKind(buf, cap);
}

static int64_t get_last_error(int64_t handle, char *buf, size_t cap)
{
	(void)handle;
	return tls.LastError(buf, cap);
}

static int count_entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	if (!d)
		die(dir);
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/*
 * Returns the state that a plugin must not change, as text: threads, descriptors, children and
 * signals. The descriptor with which the function reads /proc/self/fd is not counted.
 */
static char *status(void)
{
	char line[256], *text;
	FILE *f;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	siginfo_t info = { 0 };

	if (!out)
		die("open_memstream");
	fprintf(out, "threads %d fds %d ", count_entries("/proc/self/task"),
		count_entries("/proc/self/fd") - 1);
	fprintf(out, "children %s ",
		waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 && errno == ECHILD
			? "none" : "some");
	fprintf(out, "sigchlds %d", (int)sigchlds);
	f = fopen("/proc/self/status", "re");
	if (!f)
		die("/proc/self/status");
	while (fgets(line, sizeof line, f))
		if (strncmp(line, "Sig", 3) == 0 && strncmp(line, "SigQ", 4) != 0) {
			line[strcspn(line, "\n")] = '\0';
			line[6] = ' ';
			fprintf(out, " %s", line);
		}
	fclose(f);
	fclose(out);
	return text;
}

static void on_sigchld(int sig)
{
	(void)sig;
	sigchlds++;
}

/* A signal handler that calls tls_Cancel, as an interpreter's handler for SIGINT would. */
static void on_cancel(int sig)
{
	static const char complaint[] = "host: tls_Cancel fails or changes errno\n";
	int before = errno;

	(void)sig;
	if ((tls.Cancel() != 0 || errno != before) &&
	    write(STDERR_FILENO, complaint, sizeof complaint - 1) >= 0)
		_exit(3);
}

struct command {
	char *text, *field[FIELDS];
	char *data; /* of a Write or a WritePlain; else NULL */
	pthread_t thread;
	atomic_int done; /* its thread can be joined without a wait */
	struct command *next;
};

static struct command *threads;

#define HANDLE strtoll(a[2], NULL, 10)
#define IS(name) (strcmp(op, name) == 0)

/* Calls a function of the plugin, on any thread, and answers. */
static void *execute(void *arg)
{
	struct command *c = arg;
	char **a = c->field, *text = NULL, *data;
	const char *op = a[1] + (a[1][0] == '&');
	int64_t result = -1;
	size_t len;

	errno = 12345;
	if (IS("NewClient"))
		result = tls.NewClient(a[2], atoi(a[3]));
	else if (IS("Handshake"))
		result = tls.Handshake(HANDLE);
	else if (IS("Write"))
		result = tls.Write(HANDLE, c->data, strtoull(a[3], NULL, 10));
	else if (IS("WriteRaw")) /* the data is a field of the line, or NULL */
		result = tls.Write(HANDLE, a[3], strtoull(a[4], NULL, 10));
	else if (IS("WriteZeros")) {
		data = had(calloc(1, strtoull(a[3], NULL, 10)));
		result = tls.Write(HANDLE, data, strtoull(a[3], NULL, 10));
		free(data);
	} else if (IS("WritePlain"))
		result = tls.WritePlain(HANDLE, c->data, strtoull(a[3], NULL, 10));
	else if (IS("ReadPlain")) {
		len = strtoull(a[3], NULL, 10);
		text = a[4] ? NULL : had(malloc(len > 0 && len <= 1 << 24 ? len : 1));
		result = tls.ReadPlain(HANDLE, text, len);
	} else if (IS("Read")) {
		len = strtoull(a[3], NULL, 10);
		text = a[4] ? NULL : had(malloc(len > 0 && len <= 1 << 24 ? len : 1));
		result = tls.Read(HANDLE, text, len);
	} else if (IS("Close"))
		result = tls.Close(HANDLE);
	else if (IS("Shutdown"))
		result = tls.Shutdown(HANDLE);
	else if (IS("Descriptor"))
		result = tls.Descriptor(HANDLE);
	else if (IS("SetInsecureSkipVerify"))
		result = tls.SetInsecureSkipVerify(HANDLE, atoi(a[3]));
	else if (IS("Wait"))
		result = tls.Wait(atoi(a[2]));
	else if (IS("SetTimeout"))
		result = tls.SetTimeout(HANDLE, atoi(a[3]));
	else if (IS("SetStrictWrites"))
		result = tls.SetStrictWrites(atoi(a[2]));
	else if (IS("NewServerContext"))
		result = tls.NewServerContext(a[2], a[3]);
	else if (IS("Accept"))
		result = tls.Accept(HANDLE, a[3], atoi(a[4]));
	else if (IS("CloseServerContext"))
		result = tls.CloseServerContext(HANDLE);
	else if (IS("SetCaBundle"))
		result = tls.SetCaBundle(a[2]);
	else if (IS("PeerCertSubject"))
		text = fetch(tls.PeerCertSubject, HANDLE, &result);
	else if (IS("Subject")) { /* without asking for the length first */
		text = had(calloc(1, 4096));
		result = tls.PeerCertSubject(HANDLE, text, 4096);
	} else if (IS("Backend"))
		text = fetch(get_backend, 0, &result);
	else if (IS("Version"))
		text = fetch(tls.Version, HANDLE, &result);
	else if (IS("SetOption"))
		result = tls.SetOption(HANDLE, a[3], a[4]);
	else if (IS("SetCertificate"))
		result = tls.SetCertificate(HANDLE, a[3], a[4], a[5]);
	else if (IS("Listen"))
		result = tls.Listen(HANDLE, a[3], atoi(a[4]));
	else if (IS("Info")) {
		text = had(calloc(1, 1 << 16));
		result = tls.Info(HANDLE, a[3], text, 1 << 16);
	} else if (IS("ErrorKind"))
		text = fetch(get_error_kind, 0, &result);
	else if (IS("ErrorCode")) { /* the text of the answer is the code */
		text = had(malloc(32));
		result = snprintf(text, 32, "%" PRId64, tls.ErrorCode());
	} else if (IS("Cancel"))
		result = tls.Cancel();
	else if (IS("LastError"))
		text = fetch(get_last_error, 0, &result);
	else if (IS("Cut")) { /* the text is what a getter writes into a buffer that is too small */
		char small[8] = "XXXXXXX";
		result = tls.LastError(small, (size_t)HANDLE);
		text = had(strdup(small));
	} else
		die(op);
	if (errno != 12345 && !IS("PeerCertSubject") && !IS("Backend") && !IS("Version") &&
	    !IS("LastError") && !IS("ErrorKind") && !IS("ErrorCode") && !IS("Info") &&
	    strncmp(op, "Read", 4) != 0 && strncmp(op, "Write", 5) != 0)
		die("the call has changed errno");
	if (result < 0) {
		free(text);
		/* The text has at most 4095 bytes, so one call is enough. */
		text = had(malloc(8192));
		tls.LastError(text, 8192);
	}
	if (result > 0 && strncmp(op, "Read", 4) == 0)
		answer(a[0], result, text, (size_t)result);
	else
		reply(a[0], result,
			text && !(result == 0 && strncmp(op, "Read", 4) == 0) ? text : "");
	free(text);
	atomic_store(&c->done, 1);
	return NULL;
}

static void drop(struct command *c)
{
	free(c->text);
	free(c->data);
	free(c);
}

/* Joins the threads that have ended. If all is not 0, waits for the others, and joins them, too. */
static void join_threads(int all)
{
	for (struct command **at = &threads; *at;) {
		struct command *c = *at;

		if (!all && !atomic_load(&c->done)) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		pthread_join(c->thread, NULL);
		drop(c);
	}
}

/* Reads the data that follows the line of a command. */
static char *read_data(size_t len)
{
	char *data = had(malloc(len ? len : 1));

	for (size_t n = 0; n < len;) {
		ssize_t got = read(STDIN_FILENO, data + n, len - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			die("the data of a command");
		n += (size_t)got;
	}
	return data;
}

/* Undoes the escapes of an argument. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (*text == '\\' && text[1])
			*to++ = *++text == 't' ? '\t' : *text == 'n' ? '\n' : *text;
		else
			*to++ = *text;
	*to = '\0';
}

/*
 * Reads a line, and removes the line feed. Reads byte by byte: a forked child must find the next
 * command in the input, not in a buffer of its parent.
 */
static char *read_command(void)
{
	char *line = had(malloc(LINE));
	size_t n = 0;

	while (n < LINE - 1) {
		ssize_t got = read(STDIN_FILENO, line + n, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0 || line[n] == '\n')
			break;
		n++;
	}
	line[n] = '\0';
	if (n == 0) {
		free(line);
		return NULL;
	}
	return line;
}

/*
 * Forks. The child runs the next commands until "exit". The parent waits for the child, and then
 * sends the child's status under the tag "child".
 */
static void in_child(const char *tag)
{
	pid_t pid = fork();
	int state;

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		threads = NULL; /* the child has none of these threads */
		pthread_mutex_init(&replying, NULL); /* a thread of the parent may have locked it */
		reply(tag, 0, "");
		return;
	}
	while (waitpid(pid, &state, 0) < 0 && errno == EINTR)
		continue;
	reply("child", state, "");
}

int main(int argc, char **argv)
{
	char *line, *text;
	pid_t first = getpid();

	if (argc != 2)
		die("usage: host PLUGIN.so");
	load(argv[1]);
	for (; (line = read_command());) {
		struct command *c = had(calloc(1, sizeof *c));
		char *rest = line;

		c->text = line;
		for (int i = 0; i < FIELDS && rest; i++) {
			c->field[i] = strsep(&rest, "\t");
			if (strcmp(c->field[i], "\\N") == 0)
				c->field[i] = NULL;
			else
				unescape(c->field[i]);
		}
		if (!c->field[1])
			die("a command without a name");
		const char *op = c->field[1] + (*c->field[1] == '&');
		if (IS("Write") || IS("WritePlain"))
			c->data = read_data(strtoull(c->field[3], NULL, 10));
		if (op != c->field[1]) {
			join_threads(0);
			c->next = threads;
			threads = c;
			if (pthread_create(&c->thread, NULL, execute, c) != 0)
				die("pthread_create");
			continue;
		}
		if (IS("exit")) {
			drop(c);
			break;
		}
		if (IS("fork")) {
			in_child(c->field[0]);
		} else if (IS("status")) {
			join_threads(1);
			text = status();
			reply(c->field[0], 0, text);
			free(text);
		} else if (IS("chdir")) {
			reply(c->field[0], chdir(c->field[2]), "");
		} else if (IS("count-sigchld")) {
			signal(SIGCHLD, on_sigchld);
			reply(c->field[0], 0, "");
		} else if (IS("subreaper")) { /* adopts orphaned descendants */
			reply(c->field[0], prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "");
		} else if (IS("wait-any")) {
			/* Reaps a child, and answers its pid; 0: there is no child; 1: none has
			 * ended. */
			pid_t found = waitpid(-1, NULL, WNOHANG);
			reply(c->field[0],
				found < 0 && errno == ECHILD ? 0 : found > 0 ? found : 1, "");
		} else if (IS("ignore")) { /* ignores a signal */
			signal(atoi(c->field[2]), SIG_IGN);
			reply(c->field[0], 0, "");
		} else if (IS("catch")) { /* installs on_cancel; argument: sa_flags */
			struct sigaction act = { .sa_handler = on_cancel,
				.sa_flags = atoi(c->field[2]) };
			reply(c->field[0],
				sigaction(SIGUSR1, &act, NULL) |
					sigaction(SIGALRM, &act, NULL), "");
		} else if (IS("interrupt")) {
			/* Sends SIGUSR1 to the newest thread that is still in a call. */
			join_threads(0);
			if (threads)
				pthread_kill(threads->thread, SIGUSR1);
			reply(c->field[0], 0, "");
		} else if (IS("alarm")) { /* sends SIGALRM at this interval, in ms */
			struct timeval ms = { 0, atoi(c->field[2]) * 1000 };
			reply(c->field[0],
				setitimer(ITIMER_REAL, &(struct itimerval){ ms, ms }, NULL), "");
		} else if (IS("inherit")) { /* opens a descriptor without close-on-exec */
			reply(c->field[0], open(c->field[2], O_RDONLY), "");
		} else if (IS("replace")) {
			/* Puts a file in the place of each open descriptor above 2. Answers how
			 * many were replaced. */
			int file = open(c->field[2], O_RDWR | O_APPEND), n = 0;
			for (int fd = 3; file >= 0 && fd < 256; fd++)
				if (fd != file && fcntl(fd, F_GETFD) >= 0)
					n += dup2(file, fd) == fd;
			reply(c->field[0], n, "");
		} else if (IS("seteuid")) {
			reply(c->field[0], seteuid((uid_t)atoi(c->field[2])), "");
		} else if (IS("load")) { /* loads another copy of the plugin */
			load(c->field[2]);
			reply(c->field[0], 0, "");
		} else if (IS("quit")) { /* calls exit(), also while threads are in calls */
			exit(0);
		} else if (IS("readable")) { /* answers 1 if a descriptor is readable, else 0 */
			struct pollfd p = { .fd = atoi(c->field[2]), .events = POLLIN };
			reply(c->field[0], poll(&p, 1, 0), "");
		} else if (IS("nofile")) { /* new descriptors are below this number */
			struct rlimit limit = { 0 };
			getrlimit(RLIMIT_NOFILE, &limit);
			limit.rlim_cur = (rlim_t)atoi(c->field[2]);
			reply(c->field[0], setrlimit(RLIMIT_NOFILE, &limit), "");
		} else if (IS("spawn")) {
			/*
			 * Counts the sockets that a program inherits. system() starts the program
			 * without the handlers of pthread_atfork().
			 */
			reply(c->field[0],
				system("exit $(ls -l /proc/self/fd | grep -c socket:)"), "");
		} else if (IS("reload")) {
			dlclose(library);
			load(argv[1]);
			reply(c->field[0], 0, "");
		} else {
			execute(c);
		}
		drop(c);
	}
	if (getpid() != first)
		_exit(0); /* no leak check, which would count memory of the parent's threads */
	join_threads(1);
	dlclose(library);
	return 0;
}
