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

/* Append the formatted text to the string in the array out, which has room for cap bytes, the NUL
 * included. A text that does not fit is cut off after a whole UTF-8 character. */
__attribute__((format(printf, 3, 4)))
void text_add(char *out, size_t cap, const char *format, ...);
__attribute__((format(printf, 3, 0)))
void text_vadd(char *out, size_t cap, const char *format, va_list args);

/* Copies text to the array out, which has room for cap bytes, the NUL included. A text that does
 * not fit is cut off. Returns the full length of text. out may be NULL. */
int64_t text_give(char *out, size_t cap, const char *text);

/* A text that grows. Its owner must free text->bytes. If there is no memory, text->failed becomes
 * true, and from then on text_put adds nothing. */
struct text {
	char *bytes;
	size_t len, cap;
	bool failed;
};

__attribute__((format(printf, 2, 3)))
void text_put(struct text *out, const char *format, ...);

/* Makes a text, which the caller frees. Returns NULL with errno if there is no memory. */
__attribute__((format(printf, 1, 2)))
char *text_make(const char *format, ...);

/* Makes the path absolute, from the working directory. The caller frees the result. Returns NULL
 * with errno if it fails. */
char *absolute_path(const char *path);

/* The system's English text for an errno. */
const char *errno_text(int error);

/* Says whether the bytes are UTF-8 (RFC 3629). */
bool utf8_valid(const char *at, size_t len);

#endif
