/* plugin.c - see plugin.h */
#define _POSIX_C_SOURCE 200809L /* readlink, access */

#include "plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FUNCTIONS 32

/* The plugin that is loaded. A process loads at most one. */
static struct {
	void *library;
	Symbol *symbols[MAX_FUNCTIONS]; /* in the order of tls_functions */
} loaded;

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash != NULL ? slash + 1 : path;
}

static bool is_built_in(const char *path)
{
	return strncmp(path, "builtin:", 8) == 0 || strcmp(base_name(path), "PrintPlugin") == 0 ||
	       strcmp(base_name(path), "BlobPlugin") == 0;
}

/* The folder of a file, "." if it has none; the caller frees it. */
static char *folder_of(const char *file)
{
	const char *slash = strrchr(file, '/');
	if (slash == NULL)
		return copy_text(".", 1);
	return copy_text(file, slash == file ? 1 : (size_t)(slash - file));
}

static char *own_folder(void)
{
	char exe[PATH_MAX + 1];
	ssize_t len = readlink("/proc/self/exe", exe, PATH_MAX);
	if (len <= 0)
		return copy_text(".", 1);
	exe[len] = '\0';
	return folder_of(exe);
}

#define MAX_PLACES 3

/* Stores the paths where a plugin's file may be, in the order of the search, and returns how many
 * there are. The caller frees the paths. */
static size_t places(const char *script, const char *path, char *files[MAX_PLACES])
{
	size_t n = 0;
	char *folder = folder_of(script), *own = own_folder();
	const char *dir = getenv("DOMHOST_PLUGIN_PATH");

	files[n++] = path[0] == '/' ? format_text("%s.so", path) :
	                              format_text("%s/%s.so", folder, path);
	if (dir != NULL && dir[0] != '\0')
		files[n++] = format_text("%s/%s.so", dir, base_name(path));
	files[n++] = format_text("%s/%s.so", own, base_name(path));
	free(folder);
	free(own);
	return n;
}

/* Looks up all functions in the plugin, and fails if one is missing. A function without a symbol
 * is domhost's own. */
static bool bind(const char *file, Failure *f, int line)
{
	for (size_t i = 0; tls_functions[i].name != NULL; i++) {
		if (tls_functions[i].symbol == NULL)
			continue;
		void *address = dlsym(loaded.library, tls_functions[i].symbol);
		if (address == NULL)
			return fail(f, line, "%s is not a tls plugin: it has no %s", file,
			            tls_functions[i].symbol);
		/* ISO C has no cast from void * to a function pointer. So the bytes are copied. */
		memcpy(&loaded.symbols[i], &address, sizeof address);
	}
	return true;
}

static bool load_file(const char *file, Failure *f, int line)
{
	loaded.library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (loaded.library == NULL)
		return fail(f, line, "plugin: %s", dlerror());
	if (bind(file, f, line))
		return true;
	plugin_unload();
	return false;
}

static bool not_found(const char *path, char *files[], size_t n, Failure *f, int line)
{
	char *tried = copy_text("", 0);
	for (size_t i = 0; i < n; i++) {
		char *more = format_text("%s%s %s", tried, i > 0 ? "," : "", files[i]);
		free(tried);
		tried = more;
	}
	fail(f, line, "plugin %s: no such file; tried%s", path, tried);
	free(tried);
	return false;
}

bool plugin_load(const char *script, const char *path, Failure *f, int line)
{
	char *files[MAX_PLACES];
	size_t found = 0;

	if (is_built_in(path))
		return true;
	if (loaded.library != NULL)
		return fail(f, line, "plugin %s: there is a tls plugin already", path);
	size_t n = places(script, path, files);
	while (found < n && access(files[found], F_OK) != 0)
		found++;
	bool ok = found < n ? load_file(files[found], f, line) : not_found(path, files, n, f, line);
	for (size_t i = 0; i < n; i++)
		free(files[i]);
	return ok;
}

bool plugin_is_loaded(void)
{
	return loaded.library != NULL;
}

void plugin_unload(void)
{
	if (loaded.library != NULL)
		dlclose(loaded.library);
	memset(&loaded, 0, sizeof loaded);
}

const Native *plugin_find(const char *name)
{
	if (loaded.library == NULL)
		return NULL;
	for (const Native *n = tls_functions; n->name != NULL; n++)
		if (strcmp(n->name, name) == 0)
			return n;
	return NULL;
}

Symbol *plugin_symbol(const Native *n)
{
	return loaded.symbols[n - tls_functions];
}
