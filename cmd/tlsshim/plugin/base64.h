/*
 * base64.h - base64 with padding (RFC 4648 section 4), the form of blobs in JSON.
 */
#ifndef TLSPLUGIN_BASE64_H
#define TLSPLUGIN_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* The text of these bytes, to be freed; NULL if there is no memory for it. */
char *base64_text(const void *data, size_t len);

/* The bytes of a text. Returns their number; -1 if it is not base64 or they are more than cap. */
int64_t base64_bytes(const char *text, void *to, size_t cap);

#endif
