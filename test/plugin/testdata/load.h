/*
 * load.h - the plugin's functions for the programs of this folder, which load it with dlopen.
 *
 * load_plugin says whether they are all there. They are called without their prefix.
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
