/*
 * plugin.h - finding and loading TlsPlugin.so, and the tls.* functions
 */
#ifndef PLUGIN_H
#define PLUGIN_H

#include "native.h"

/* Carries out one plugin directive of the script. PrintPlugin, BlobPlugin and
 * builtin:NAME are part of domhost, and need no file. Any other path names a tls
 * plugin. Its file is PATH.so, looked up from the script's folder. If that file is
 * missing, the file with the same base name is taken from the folder
 * $DOMHOST_PLUGIN_PATH, or else from the folder of the program domhost. */
bool plugin_load(const char *script, const char *path, Failure *f, int line);
bool plugin_is_loaded(void);
void plugin_unload(void);

/* Returns the tls.* function of this name. NULL: there is none, or no plugin is loaded. */
const Native *plugin_find(const char *name);

/* All tls.* functions. The last entry has no name. plugin_symbol returns the address of a function
 * in the loaded plugin. */
extern const Native tls_functions[];
typedef void Symbol(void);
Symbol *plugin_symbol(const Native *n);

#endif
