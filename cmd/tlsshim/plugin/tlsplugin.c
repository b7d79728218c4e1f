/*
 * The functions of tlsplugin.h: each checks what a C host can get wrong and tlsd
 * could not see (pointers, lengths, text that is not UTF-8, paths relative to a
 * directory that only this process knows), and leaves all else to tlsd.
 */
#define _POSIX_C_SOURCE 200809L
#pragma GCC visibility push(default)
#include "tlsplugin.h"
#pragma GCC visibility pop

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "connection.h"
#include "data.h"
#include "find.h"
#include "text.h"
#include "use.h"
#include "watch.h"

static const struct method
	new_client = { .name = "tls.NewClient", .flags = OPENS | MAKES_HANDLE | TRUSTS },
	set_insecure_skip_verify = { .name = "tls.SetInsecureSkipVerify" },
	new_server_context = { .name = "tls.NewServerContext", .flags = OPENS | MAKES_HANDLE },
	peer_cert_subject = { .name = "tls.PeerCertSubject", .result = TEXT },
	backend = { .name = "tls.Backend", .result = TEXT, .flags = OPENS | QUIET },
	version_of_library = { .name = "tls.Version", .result = TEXT, .flags = OPENS | QUIET },
	version_of_connection = { .name = "tls.Version", .result = TEXT },
	info = { .name = "tls.Info", .result = TEXT },
	set_certificate = { .name = "tls.SetCertificate" },
	listen_ = { .name = "tls.Listen" },
	read_plain = { .name = "tls.ReadPlain", .result = TEXT, .waits_on = CONNECTION },
	write_plain = { .name = "tls.WritePlain", .waits_on = CONNECTION };

/* A tls_ReadPlain takes at most so many bytes, whatever it may: an answer has a bound (wire.h). */
enum { PLAIN_BYTES = 256 * 1024 };

/* --- parameters --- */

static bool check_text(struct process *p, const char *op, const char *name, const char *text)
{
	size_t len = text ? strnlen(text, PATH_MAX) : 0;

	if (!text)
		process_fail(p, "params", "%s: %s: must not be NULL", op, name);
	else if (len == PATH_MAX)
		process_fail(p, "params", "%s: %s: must not be longer than %d bytes", op, name, PATH_MAX - 1);
	else if (!utf8_valid(text, len))
		process_fail(p, "params", "%s: %s: must be UTF-8", op, name);
	else
		return true;
	return false;
}

/* The absolute form of a path parameter, to be freed; or NULL and the error set. */
static char *check_path(struct process *p, const char *op, const char *name, const char *path)
{
	char *whole;

	if (!check_text(p, op, name, path))
		return NULL;
	if (!*path) {
		process_fail(p, "params", "%s: %s: must not be empty", op, name);
		return NULL;
	}
	whole = absolute_path(path);
	if (!whole) {
		process_fail(p, "params", "%s: %s %s: the working directory: %s", op, name, path,
			     errno_text(errno));
		return NULL;
	}
	if (!utf8_valid(whole, strlen(whole))) {
		process_fail(p, "params", "%s: %s %s: the path of the working directory must be UTF-8", op,
			     name, path);
		free(whole);
		return NULL;
	}
	return whole;
}

/* Data to write. */
static bool check_data(struct process *p, const char *op, const void *data, size_t len)
{
	if (len > DATA_MAX_BYTES)
		process_fail(p, "params", "%s: data of %zu bytes: must not be more than %d", op,
			     len, DATA_MAX_BYTES);
	else if (!data && len > 0)
		process_fail(p, "params", "%s: data: must not be NULL", op);
	else
		return true;
	return false;
}

/* Room for data to read. */
static bool check_room(struct process *p, const char *op, const void *buf, size_t max_bytes)
{
	if (max_bytes < 1 || max_bytes > DATA_MAX_BYTES)
		process_fail(p, "params", "%s: maxBytes %zu: must be between 1 and %d", op,
			     max_bytes, DATA_MAX_BYTES);
	else if (!buf)
		process_fail(p, "params", "%s: buf: must not be NULL", op);
	else
		return true;
	return false;
}

/* --- calls --- */

/* A whole visit for a function that needs no more than a handle. */
static int64_t visit(int64_t (*function)(struct process *p, int64_t handle), int64_t handle)
{
	struct visit v;

	visit_begin(&v);
	return visit_end(&v, function(v.process, handle));
}

/* A whole visit for a method whose result is a text; otherwise is given if it fails. name is NULL
 * or a parameter. */
static int64_t text_call(const struct method *m, int64_t handle, const char *name, char *buf,
			 size_t cap, const char *otherwise)
{
	struct call c = { .method = m, .handle = handle, .texts = { name } };
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if ((!handle || use_raise_untold(v.process, handle) == 0) &&
	    client_run(v.process, &c) == 0)
		result = text_give(buf, cap, c.text);
	else if (otherwise)
		result = text_give(buf, cap, otherwise);
	free(c.text);
	return visit_end(&v, result);
}

int64_t tls_NewClient(const char *host, int32_t port)
{
	int64_t result = -1, n = port;
	struct call c = { .method = &new_client, .texts = { host }, .n = &n };
	struct visit v;

	visit_begin(&v);
	if (check_text(v.process, new_client.name, "host", host) &&
	    client_run(v.process, &c) == 0)
		result = c.number;
	return visit_end(&v, result);
}

int64_t tls_Handshake(int64_t handle)
{
	return visit(connection_handshake, handle);
}

int64_t tls_Write(int64_t handle, const void *data, size_t len)
{
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if (check_data(v.process, "tls.Write", data, len))
		result = data_write(v.process, handle, data, len);
	return visit_end(&v, result);
}

int64_t tls_SetStrictWrites(int32_t on)
{
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if (on != 0 && on != 1)
		process_fail(v.process, "params", "tls.SetStrictWrites: on %d: must be 0 or 1", on);
	else if (v.process) {
		atomic_store(&v.process->strict, on);
		result = 0;
	}
	return visit_end(&v, result);
}

int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes)
{
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if (check_room(v.process, "tls.Read", buf, max_bytes))
		result = data_read(v.process, handle, buf, max_bytes);
	return visit_end(&v, result);
}

int64_t tls_ReadPlain(int64_t handle, void *buf, size_t max_bytes)
{
	int64_t result = -1, n = (int64_t)(max_bytes < PLAIN_BYTES ? max_bytes : PLAIN_BYTES);
	struct call c = { .method = &read_plain, .handle = handle, .n = &n };
	struct visit v;

	visit_begin(&v);
	if (check_room(v.process, read_plain.name, buf, max_bytes) &&
	    client_run(v.process, &c) == 0) {
		result = base64_bytes(c.text, buf, (size_t)n);
		if (result < 0)
			process_fail(v.process, "internal", "%s: handle %" PRId64 ": tlsd has "
				     "answered with what is not base64 of at most %" PRId64
				     " bytes", read_plain.name, handle, n);
	}
	free(c.text);
	return visit_end(&v, result);
}

int64_t tls_WritePlain(int64_t handle, const void *data, size_t len)
{
	struct call c = { .method = &write_plain, .handle = handle };
	struct visit v;
	int64_t result = -1;
	char *text = NULL;

	visit_begin(&v);
	if (check_data(v.process, write_plain.name, data, len)) {
		text = base64_text(data, len);
		if (!text)
			process_fail(v.process, "limit", "%s: out of memory", write_plain.name);
	}
	c.texts[0] = text;
	if (text && client_run(v.process, &c) == 0)
		result = (int64_t)len;
	free(text);
	return visit_end(&v, result);
}

int64_t tls_Shutdown(int64_t handle)
{
	return visit(connection_shutdown, handle);
}

int64_t tls_Close(int64_t handle)
{
	return visit(connection_close, handle);
}

int64_t tls_Descriptor(int64_t handle)
{
	return visit(connection_descriptor, handle);
}

int64_t tls_SetInsecureSkipVerify(int64_t handle, int32_t on)
{
	int64_t result = -1, n = on;
	struct call c = { .method = &set_insecure_skip_verify, .handle = handle, .n = &n };
	struct visit v;

	visit_begin(&v);
	if (use_raise_untold(v.process, handle) == 0)
		result = client_run(v.process, &c);
	return visit_end(&v, result);
}

int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds)
{
	struct visit v;

	visit_begin(&v);
	if (handle == 0)
		return visit_end(&v, client_bound(v.process, milliseconds));
	return visit_end(&v, connection_set_timeout(v.process, handle, milliseconds));
}

/* The value of an option, with a path made absolute; to be freed. NULL and the error set. */
static char *check_value(struct process *p, const char *name, const char *value)
{
	char *copy;

	if (!check_text(p, "tls.SetOption", "name", name) ||
	    !check_text(p, "tls.SetOption", "value", value))
		return NULL;
	if (*value && (strcmp(name, "ca") == 0 || strcmp(name, "client-ca") == 0))
		return check_path(p, "tls.SetOption", name, value);
	copy = strdup(value);
	if (!copy)
		process_fail(p, "limit", "tls.SetOption: out of memory");
	return copy;
}

int64_t tls_SetOption(int64_t handle, const char *name, const char *value)
{
	struct visit v;
	int64_t result = -1;
	char *copy;

	visit_begin(&v);
	copy = check_value(v.process, name, value);
	if (copy)
		result = connection_set_option(v.process, handle, name, copy);
	free(copy);
	return visit_end(&v, result);
}

int64_t tls_SetCertificate(int64_t handle, const char *server_name, const char *cert_file,
			   const char *key_file)
{
	struct call c = { .method = &set_certificate, .handle = handle };
	char *cert = NULL, *key = NULL;
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if (check_text(v.process, set_certificate.name, "serverName", server_name))
		cert = check_path(v.process, set_certificate.name, "certFile", cert_file);
	if (cert)
		key = check_path(v.process, set_certificate.name, "keyFile", key_file);
	c.texts[0] = server_name;
	c.texts[1] = cert;
	c.texts[2] = key;
	if (key && use_raise_untold(v.process, handle) == 0)
		result = client_run(v.process, &c);
	free(cert);
	free(key);
	return visit_end(&v, result);
}

int64_t tls_NewServerContext(const char *cert_file, const char *key_file)
{
	struct call c = { .method = &new_server_context };
	char *cert, *key = NULL;
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	cert = check_path(v.process, new_server_context.name, "certFile", cert_file);
	if (cert)
		key = check_path(v.process, new_server_context.name, "keyFile", key_file);
	c.texts[0] = cert;
	c.texts[1] = key;
	if (key && client_run(v.process, &c) == 0) {
		result = c.number;
		connection_is_context(v.process, result);
	}
	free(cert);
	free(key);
	return visit_end(&v, result);
}

int64_t tls_Accept(int64_t ctx, const char *host, int32_t port)
{
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if (check_text(v.process, "tls.Accept", "host", host))
		result = connection_accept(v.process, ctx, host, port);
	return visit_end(&v, result);
}

int64_t tls_Listen(int64_t ctx, const char *host, int32_t port)
{
	int64_t result = -1, n = port;
	struct call c = { .method = &listen_, .handle = ctx, .texts = { host }, .n = &n };
	struct visit v;

	visit_begin(&v);
	if (check_text(v.process, listen_.name, "host", host) && client_run(v.process, &c) == 0)
		result = c.number;
	return visit_end(&v, result);
}

int64_t tls_Wait(int32_t milliseconds)
{
	struct visit v;

	visit_begin(&v);
	return visit_end(&v, watch_wait(v.process, milliseconds));
}

int64_t tls_CloseServerContext(int64_t ctx)
{
	return visit(connection_close_context, ctx);
}

int64_t tls_SetCaBundle(const char *path)
{
	struct visit v;
	int64_t result = -1;
	char *whole = NULL;

	visit_begin(&v);
	if (path && !*path)
		result = client_trust(v.process, path);
	else if ((whole = check_path(v.process, "tls.SetCaBundle", "path", path)))
		result = client_trust(v.process, whole);
	free(whole);
	return visit_end(&v, result);
}

int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap)
{
	return text_call(&peer_cert_subject, handle, NULL, buf, cap, NULL);
}

int64_t tls_Info(int64_t handle, const char *name, char *buf, size_t cap)
{
	struct visit v;
	bool ok;

	visit_begin(&v);
	ok = check_text(v.process, info.name, "name", name);
	if (visit_end(&v, ok ? 0 : -1) < 0)
		return -1;
	return text_call(&info, handle, name, buf, cap, NULL);
}

int64_t tls_Backend(char *buf, size_t cap)
{
	return text_call(&backend, 0, NULL, buf, cap, "stub");
}

int64_t tls_Version(int64_t handle, char *buf, size_t cap)
{
	if (handle)
		return text_call(&version_of_connection, handle, NULL, buf, cap, NULL);
	return text_call(&version_of_library, 0, NULL, buf, cap, "");
}

int64_t tls_Cancel(void)
{
	process_cancel(); /* no visit: see there */
	return 0;
}

int64_t tls_LastError(char *buf, size_t cap)
{
	char text[ERROR_BYTES];
	struct visit v;

	visit_begin(&v);
	v.asks = true;
	error_text(v.process, text);
	return visit_end(&v, text_give(buf, cap, text));
}

int64_t tls_ErrorKind(char *buf, size_t cap)
{
	struct visit v;

	visit_begin(&v);
	v.asks = true;
	return visit_end(&v, text_give(buf, cap, error_kind(v.process).name));
}

int64_t tls_ErrorCode(void)
{
	struct visit v;

	visit_begin(&v);
	v.asks = true;
	return visit_end(&v, error_kind(v.process).code);
}

/* When the library is unloaded, at the latest at the end of the process. If another thread is in
 * a call at that moment, nothing is freed. */
__attribute__((destructor)) static void unload(void)
{
	struct process *p = process_retire();

	error_end();
	if (!p)
		return;
	client_end(p);
	process_free(p);
	owned_end();
}
