/*
 * tls.c - the tls.* functions, bound to the C functions of tlsplugin.h
 *
 * The table at the end has an entry for each function. The last column is a
 * function of this file that makes the C call. It is named after the parameters:
 * call_string_int makes the call of each C function that takes a string and an
 * int. The plugin gets values out of range unchanged, because it must check them.
 */
#include "plugin.h"

#include "../../../../cmd/tlsshim/plugin/tlsplugin.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int64_t handle(const NativeCall *c, size_t i)
{
	return c->args[i].u.i;
}

static int32_t small(const NativeCall *c, size_t i)
{
	return (int32_t)c->args[i].u.i;
}

static const char *string(const NativeCall *c, size_t i)
{
	return c->args[i].u.b->data;
}

/* The address of the C function that c calls. Its type is that of model, a function of
 * tlsplugin.h with the same parameters. */
#define FUNCTION(model, c) ((__typeof__(&model))plugin_symbol((c)->native))

/* Calls a C function that has a text as its result. Writes as much of the text to buf as cap
 * allows, and returns the length of the whole text, or -1 if the call has failed. */
typedef int64_t Getter(const NativeCall *c, char *buf, size_t cap);

/* Returns a whole text, which the caller frees, or NULL if the call has failed. The
 * text may be longer at the next call, so it is asked for until it fits. */
static char *get_string(const NativeCall *c, Getter *get, size_t *len)
{
	size_t cap = 4096;
	char *buf = must_alloc(cap);
	for (;;) {
		int64_t n = get(c, buf, cap);
		if (n < 0 || (uint64_t)n > MAX_BYTES) {
			free(buf);
			return NULL;
		}
		*len = (size_t)n;
		if (*len < cap)
			return buf;
		cap = *len + 1;
		buf = must_realloc(buf, cap);
	}
}

static int64_t last_error(const NativeCall *c, char *buf, size_t cap)
{
	const Native *n = plugin_find("tls.LastError");
	(void)c;
	return ((__typeof__(&tls_LastError))plugin_symbol(n))(buf, cap);
}

/* Whether a failed call ends the script. tls.RaiseErrors sets this variable. domhost has one
 * thread, so the variable needs no lock. */
static bool raises = true;

static bool call_raise_errors(const NativeCall *c, Value *result)
{
	int64_t on = c->args[0].u.i;
	if (on != 0 && on != 1)
		return fail(c->f, c->line, "%s: on %" PRId64 ": must be 0 or 1",
			c->native->name, on);
	raises = on == 1;
	*result = value_int(T_I32, 0);
	return true;
}

/* Called if a C function has returned -1. If a failed call ends the script, records the failure,
 * frees fallback and returns false. If not, stores fallback as the script's result of the call. */
static bool failed(const NativeCall *c, Value fallback, Value *result)
{
	if (!raises) {
		*result = fallback;
		return true;
	}
	value_free(&fallback);
	size_t len = 0;
	char *text = get_string(c, last_error, &len);
	if (text == NULL || len == 0)
		fail(c->f, c->line, "%s: failed, and tls.LastError() is empty", c->native->name);
	else
		fail(c->f, c->line, "%s", text);
	free(text);
	return false;
}

static bool int_result(const NativeCall *c, int64_t n, Value *result)
{
	if (n < 0)
		return failed(c, value_int(T_I32, -1), result);
	*result = value_int(n <= INT32_MAX ? T_I32 : T_I64, n);
	return true;
}

static bool call_handle(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_Close, c)(handle(c, 0)), result);
}

static bool call_handle_int(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_SetInsecureSkipVerify, c)(handle(c, 0), small(c, 1)),
	                  result);
}

static bool call_handle_string_int(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_Accept, c)(handle(c, 0), string(c, 1), small(c, 2)),
	                  result);
}

static bool call_handle_string_string(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_SetOption, c)(handle(c, 0), string(c, 1), string(c, 2)),
	                  result);
}

static bool call_handle_3_strings(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_SetCertificate, c)(handle(c, 0), string(c, 1),
	                                                     string(c, 2), string(c, 3)), result);
}

static bool call_int(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_Wait, c)(small(c, 0)), result);
}

static bool call_string(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_SetCaBundle, c)(string(c, 0)), result);
}

static bool call_string_int(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_NewClient, c)(string(c, 0), small(c, 1)), result);
}

static bool call_string_string(const NativeCall *c, Value *result)
{
	return int_result(c, FUNCTION(tls_NewServerContext, c)(string(c, 0), string(c, 1)), result);
}

static bool call_write(const NativeCall *c, Value *result)
{
	const Bytes *data = c->args[1].u.b;
	return int_result(c, FUNCTION(tls_Write, c)(handle(c, 0), data->data, data->len), result);
}

/* If maxBytes is larger than MAX_BYTES, the buffer is NULL: the plugin must refuse
 * the size before it uses the buffer. */
static bool call_read(const NativeCall *c, Value *result)
{
	int64_t max = c->args[1].u.i;
	if (max < 0) /* tls_Read takes a size_t, which cannot be negative */
		return fail(c->f, c->line, "%s: maxBytes must be 1 to 16777216, got %" PRId64,
		            c->native->name, max);
	bool room = (uint64_t)max <= MAX_BYTES;
	Value v = value_buffer(T_BLOB, room ? (size_t)max : 0);
	int64_t n = FUNCTION(tls_Read, c)(handle(c, 0), room ? v.u.b->data : NULL, (size_t)max);
	if (n < 0 || n > max) {
		value_free(&v);
		return n < 0 ? failed(c, value_zero(T_BLOB), result) :
		               fail(c->f, c->line, "%s: the plugin says it read %" PRId64
		                    " bytes, asked for %" PRId64, c->native->name, n, max);
	}
	value_truncate(&v, (size_t)n);
	*result = v;
	return true;
}

static int64_t get_plain(const NativeCall *c, char *buf, size_t cap)
{
	return FUNCTION(tls_Backend, c)(buf, cap);
}

static int64_t get_of_handle_string(const NativeCall *c, char *buf, size_t cap)
{
	return FUNCTION(tls_Info, c)(handle(c, 0), string(c, 1), buf, cap);
}

static int64_t get_of_handle(const NativeCall *c, char *buf, size_t cap)
{
	return FUNCTION(tls_Version, c)(c->count > 0 ? handle(c, 0) : 0, buf, cap);
}

static bool string_result(const NativeCall *c, Getter *get, Value *result)
{
	size_t len = 0;
	char *text = get_string(c, get, &len);
	if (text == NULL)
		return failed(c, value_zero(T_STRING), result);
	*result = value_bytes(T_STRING, text, len);
	free(text);
	return true;
}

static bool call_getter(const NativeCall *c, Value *result)
{
	return string_result(c, get_plain, result);
}

static bool call_handle_string_getter(const NativeCall *c, Value *result)
{
	return string_result(c, get_of_handle_string, result);
}

static bool call_handle_getter(const NativeCall *c, Value *result)
{
	return string_result(c, get_of_handle, result);
}

#define HANDLE(name) {name, P_I64}
#define INT(name) {name, P_I32}
#define STRING(name) {name, P_STRING}
#define BLOB(name) {name, P_BLOB}

/* Each entry: the name in scripts, the name in C, the parameters, the function for the call. */
const Native tls_functions[] = {
	{"tls.NewClient", "tls_NewClient", {STRING("host"), INT("port")}, call_string_int},
	{"tls.Handshake", "tls_Handshake", {HANDLE("handle")}, call_handle},
	{"tls.Write", "tls_Write", {HANDLE("handle"), BLOB("data")}, call_write},
	{"tls.Read", "tls_Read", {HANDLE("handle"), {"maxBytes", P_I64}}, call_read},
	{"tls.Close", "tls_Close", {HANDLE("handle")}, call_handle},
	{"tls.SetInsecureSkipVerify", "tls_SetInsecureSkipVerify", {HANDLE("handle"), INT("on")},
		call_handle_int},
	{"tls.SetTimeout", "tls_SetTimeout", {HANDLE("handle"), INT("milliseconds")},
		call_handle_int},
	{"tls.NewServerContext", "tls_NewServerContext", {STRING("certFile"), STRING("keyFile")},
		call_string_string},
	{"tls.Accept", "tls_Accept", {HANDLE("ctxHandle"), STRING("host"), INT("port")},
		call_handle_string_int},
	{"tls.CloseServerContext", "tls_CloseServerContext", {HANDLE("ctxHandle")}, call_handle},
	{"tls.SetCaBundle", "tls_SetCaBundle", {STRING("path")}, call_string},
	{"tls.PeerCertSubject", "tls_PeerCertSubject", {HANDLE("handle")}, call_handle_getter},
	{"tls.Backend", "tls_Backend", {{NULL, P_NONE}}, call_getter},
	{"tls.Version", "tls_Version", {{"handle", P_OPTIONAL_I64}}, call_handle_getter},
	{"tls.LastError", "tls_LastError", {{NULL, P_NONE}}, call_getter},
	{"tls.SetOption", "tls_SetOption", {HANDLE("handle"), STRING("name"), STRING("value")},
		call_handle_string_string},
	{"tls.Info", "tls_Info", {HANDLE("handle"), STRING("name")}, call_handle_string_getter},
	{"tls.SetCertificate", "tls_SetCertificate", {HANDLE("handle"), STRING("serverName"),
		STRING("certFile"), STRING("keyFile")}, call_handle_3_strings},
	{"tls.Listen", "tls_Listen", {HANDLE("ctxHandle"), STRING("host"), INT("port")},
		call_handle_string_int},
	{"tls.ReadPlain", "tls_ReadPlain", {HANDLE("handle"), {"maxBytes", P_I64}}, call_read},
	{"tls.WritePlain", "tls_WritePlain", {HANDLE("handle"), BLOB("data")}, call_write},
	{"tls.Shutdown", "tls_Shutdown", {HANDLE("handle")}, call_handle},
	{"tls.Wait", "tls_Wait", {INT("milliseconds")}, call_int},
	{"tls.ErrorKind", "tls_ErrorKind", {{NULL, P_NONE}}, call_getter},
	{"tls.RaiseErrors", NULL, {INT("on")}, call_raise_errors},
	{NULL, NULL, {{NULL, P_NONE}}, NULL},
};
