/*
 * load.h - the plugin's functions for the programs of this folder, which load it with dlopen.
 *
 * load_plugin returns 1 if the library has all of them. If not, it prints why, and returns 0. The
 * programs call the functions without the prefix tls_.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

#include "tlsplugin.h"

#define EACH_FUNCTION(F) \
	F(NewClient) F(Handshake) F(Write) F(Read) F(Close) \
	F(Descriptor) F(SetCaBundle) F(Cancel) F(LastError)

#define DECLARE(name) static __typeof__(&tls_##name) name;
EACH_FUNCTION(DECLARE)

static void *plugin;

static int load_plugin(const char *file)
{
	plugin = dlopen(file, RTLD_NOW);
	if (!plugin) {
		fprintf(stderr, "%s\n", dlerror());
		return 0;
	}
#define FIND(name) \
	if (!(*(void **)&name = dlsym(plugin, "tls_" #name))) { \
		fprintf(stderr, "%s\n", dlerror()); \
		return 0; \
	}
	EACH_FUNCTION(FIND)
	return 1;
}
