/*
 * base64.h - base64 with padding (RFC 4648 section 4), the form of blobs in JSON.
 */
#ifndef TLSPLUGIN_BASE64_H
#define TLSPLUGIN_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* Returns the base64 text of len bytes, which the caller frees; NULL if there is no memory. */
char *base64_text(const void *data, size_t len);

/* Decodes text into buf, which has room for cap bytes. Returns the number of bytes; -1 if text is
 * not base64, or stands for more than cap bytes. */
int64_t base64_bytes(const char *text, void *buf, size_t cap);

#endif
