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

/* Stores the address of the function with this name in *(void **)pointer. */
static inline void plugin_find(void *so, const char *name, void *pointer)
{
	*(void **)pointer = dlsym(so, name);
	if (!*(void **)pointer)
		die("plugin: %s", dlerror());
}

#endif
