/* functions.h - the functions of TlsPlugin.so that the benchmark calls, found with dlsym */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include <dlfcn.h>

#include "stream.h"
#include "tlsplugin.h"

/* Opens the library. */
static inline void *plugin_open(const char *path)
{
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!so)
		die("plugin: %s", dlerror());
	return so;
}

/* Finds a function by its name. where points to a function pointer, which gets the address. */
static inline void plugin_find(void *so, const char *name, void *where)
{
	*(void **)where = dlsym(so, name);
	if (!*(void **)where)
		die("plugin: %s", dlerror());
}

#endif
