/*
 * text.h - small help with texts. Everything here is thread-safe and does not
 * depend on the host's locale.
 */
#ifndef TLSPLUGIN_TEXT_H
#define TLSPLUGIN_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Appends to the text in to, which has room for cap bytes with the NUL. What
 * does not fit is left out, never half a UTF-8 character. */
__attribute__((format(printf, 3, 4)))
void text_add(char *to, size_t cap, const char *format, ...);
__attribute__((format(printf, 3, 0)))
void text_vadd(char *to, size_t cap, const char *format, va_list args);

/* Copies text as snprintf would and returns its full length. */
int64_t text_give(char *to, size_t cap, const char *text);

/* A text to be freed; NULL and errno if there is no memory. */
__attribute__((format(printf, 1, 2)))
char *text_make(const char *format, ...);

/* The system's English text for an errno. */
const char *errno_text(int error);

/* Whether the bytes are UTF-8 as RFC 3629 defines it. */
bool utf8_valid(const char *at, size_t len);

#endif
