/*
 * params.h - the parameters of a call as JSON.
 *
 * What a C host can get wrong and tlsd could not see is checked here: pointers, lengths, text that
 * is not UTF-8. A path is made absolute, because only this process knows its working directory.
 * All else is left to tlsd.
 */
#ifndef TLSPLUGIN_PARAMS_H
#define TLSPLUGIN_PARAMS_H

#include "call.h"

/* The JSON array, to be freed; NULL and the error set if a parameter is wrong. p may be NULL. */
char *params_make(struct process *p, const struct call *c);

#endif
