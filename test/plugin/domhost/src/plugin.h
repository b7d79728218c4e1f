/*
 * plugin.h - finding and loading TlsPlugin.so, and the tls.* functions
 */
#ifndef PLUGIN_H
#define PLUGIN_H

#include "native.h"

/* Carries out one plugin directive of the script. PrintPlugin, BlobPlugin and
 * builtin:NAME are there without a file. Any other path names a tls plugin,
 * PATH.so from the script's folder; if there is no such file, its last part in
 * the folder $DOMHOST_PLUGIN_PATH, and then in domhost's own folder. */
bool plugin_load(const char *script, const char *path, Failure *f, int line);
bool plugin_is_loaded(void);
void plugin_unload(void);

/* A tls.* function; NULL if there is none of the name, or no plugin loaded. */
const Native *plugin_find(const char *name);

/* The tls.* functions, ended by one without a name. plugin_symbol gives the address that the
 * plugin has for one of them. */
extern const Native tls_functions[];
typedef void Symbol(void);
Symbol *plugin_symbol(const Native *n);

#endif
