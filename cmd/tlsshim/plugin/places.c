#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "find.h"
#include "system.h"
#include "text.h"

/* The sockets of a tlsd for the whole machine. The first is the default. The second is for a unit
 * of systemd that has its socket in RuntimeDirectory=tlsd. */
static const char *const system_sockets[] = { "/run/tlsd.sock", "/run/tlsd/tlsd.sock" };

void search_note(struct search *f, const char *format, ...)
{
	va_list args;

	if (*f->tried)
		text_add(f->tried, sizeof f->tried, "; ");
	va_start(args, format);
	text_vadd(f->tried, sizeof f->tried, format, args);
	va_end(args);
}

const char *search_setting(const char *name)
{
	const char *value = sys_getenv(name);

	return value && *value ? value : NULL;
}

/* --- where to look --- */

static void add_place(struct places *p, const char *path)
{
	p->candidates[p->n++] = path;
}

static void add_private(struct places *p, const char *path)
{
	p->private = p->n;
	add_place(p, path);
}

/* Returns $XDG_RUNTIME_DIR. Returns NULL if another user owns the directory, or can write to it.
 * After sudo -E another user owns it, and root's files there would be in that user's way. */
static const char *runtime_dir(struct search *f)
{
	const char *dir = search_setting("XDG_RUNTIME_DIR");
	struct stat st;

	if (!dir || *dir != '/') /* must be absolute, XDG Base Directory Specification */
		return NULL;
	if (stat(dir, &st) == 0 && (st.st_uid != geteuid() || (st.st_mode & 022))) {
		search_note(f, "XDG_RUNTIME_DIR=%s is not used, because it %s", dir,
			    st.st_uid != geteuid() ? "belongs to another user" :
						     "is open to other users");
		return NULL;
	}
	return dir;
}

void places_find(struct places *p, struct search *f)
{
	const char *named = search_setting("TLSD_SOCKET"), *runtime;

	p->n = 0;
	p->own[0] = p->dir[0] = '\0';
	if (named) {
		add_private(p, named);
		return;
	}
	runtime = runtime_dir(f);
	if (runtime) {
		text_add(p->own, sizeof p->own, "%s/tlsd.sock", runtime);
	} else {
		text_add(p->dir, sizeof p->dir, "/tmp/tlsd-%u", (unsigned)geteuid());
		text_add(p->own, sizeof p->own, "%s/tlsd.sock", p->dir);
	}
	if (*f->conf.socket) {
		add_place(p, f->conf.socket);
		p->private = -1;
		if (f->conf.autostart == ALLOWED)
			add_private(p, p->own);
		return;
	}
	if (runtime)
		add_private(p, p->own);
	for (size_t i = 0; i < sizeof system_sockets / sizeof *system_sockets; i++)
		add_place(p, system_sockets[i]);
	if (!runtime)
		add_private(p, p->own);
}

/* Looks for a sign that the system has a tlsd for all users (find.h). If $TLSD_SOCKET is set, the
 * sign is that it names one of the system_sockets. Otherwise the sign is that one of the
 * system_sockets exists. Returns the socket that is the sign; or NULL. */
static const char *sign_of_system(void)
{
	const char *named = search_setting("TLSD_SOCKET");
	struct stat st;

	for (size_t i = 0; i < sizeof system_sockets / sizeof *system_sockets; i++)
		if (named ? strcmp(named, system_sockets[i]) == 0 :
			    lstat(system_sockets[i], &st) == 0)
			return system_sockets[i];
	return NULL;
}

/* Notes why no private tlsd is started. Returns false. */
__attribute__((format(printf, 2, 3)))
static bool refuse(struct search *f, const char *format, ...)
{
	char why[512] = "";
	va_list args;

	va_start(args, format);
	text_vadd(why, sizeof why, format, args);
	va_end(args);
	search_note(f, "no private tlsd was started%s", why);
	return false;
}

bool may_start(struct search *f)
{
	const char *autostart = search_setting("TLSD_AUTOSTART"), *sign = sign_of_system();
	const struct client_conf *conf = &f->conf;

	/* In a set-id program the real and the effective user, or group, differ. A private tlsd
	 * would give the rights of one of the two to programs of the other. */
	if (getuid() != geteuid())
		return refuse(f, ", because the real user of this program is %u and the effective "
			      "one %u", (unsigned)getuid(), (unsigned)geteuid());
	if (getgid() != getegid())
		return refuse(f, ", because the real group of this program is %u and the effective "
			      "one %u", (unsigned)getgid(), (unsigned)getegid());
	if (autostart && strcmp(autostart, "0") == 0)
		return refuse(f, ", because TLSD_AUTOSTART is 0");
	if (conf->autostart == FORBIDDEN)
		return refuse(f, ", because %s has autostart = no; the system's tlsd is down",
			      CLIENT_CONF);
	if (conf->autostart == ALLOWED)
		return true;
	if (*conf->socket)
		return refuse(f, ", because %s names the system's socket %s; the system's tlsd is "
			      "down", CLIENT_CONF, conf->socket);
	return !sign || refuse(f, " beside the system's tlsd, which is down or not for this user: "
			       "its socket is %s", sign);
}

bool place_is_private(struct search *f, const char *dir)
{
	struct stat st;
	const char *wrong = NULL;

	if (lstat(dir, &st) < 0)
		wrong = errno == ENOENT ? NULL : errno_text(errno);
	else if (!S_ISDIR(st.st_mode))
		wrong = "is no directory";
	else if (st.st_uid != geteuid())
		wrong = "belongs to another user";
	else if (st.st_mode & 077)
		wrong = "is open to other users; its mode must be 0700";
	if (wrong)
		search_note(f, "%s: %s", dir, wrong);
	return !wrong;
}
