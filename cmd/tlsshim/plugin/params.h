/*
 * params.h - the parameters of a call as JSON.
 *
 * The plugin looks for mistakes of a C host that tlsd cannot see: NULL pointers, lengths, text that
 * is not UTF-8. It makes paths absolute, because only this process knows its working directory.
 * tlsd checks everything else.
 */
#ifndef TLSPLUGIN_PARAMS_H
#define TLSPLUGIN_PARAMS_H

#include "call.h"

/* Returns the JSON array, which the caller frees. Returns NULL with the error set if a parameter is
 * wrong, or if there is no memory. p may be NULL. */
char *params_make(struct process *p, const struct call *c);

#endif
