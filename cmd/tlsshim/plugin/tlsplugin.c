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

#include "connection.h"
#include "data.h"
#include "find.h"
#include "text.h"
#include "use.h"

static const struct method
	new_client = { .name = "tls.NewClient", .flags = OPENS | MAKES_HANDLE | TRUSTS },
	set_insecure_skip_verify = { .name = "tls.SetInsecureSkipVerify" },
	new_server_context = { .name = "tls.NewServerContext", .flags = OPENS | MAKES_HANDLE },
	peer_cert_subject = { .name = "tls.PeerCertSubject", .result = TEXT },
	backend = { .name = "tls.Backend", .result = TEXT, .flags = OPENS | QUIET },
	version_of_library = { .name = "tls.Version", .result = TEXT, .flags = OPENS | QUIET },
	version_of_connection = { .name = "tls.Version", .result = TEXT };

/* --- parameters --- */

static bool check_text(struct process *p, const char *op, const char *name, const char *text)
{
	size_t len = text ? strnlen(text, PATH_MAX) : 0;

	if (!text)
		process_fail(p, "%s: %s: must not be NULL", op, name);
	else if (len == PATH_MAX)
		process_fail(p, "%s: %s: must not be longer than %d bytes", op, name, PATH_MAX - 1);
	else if (!utf8_valid(text, len))
		process_fail(p, "%s: %s: must be UTF-8", op, name);
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
		process_fail(p, "%s: %s: must not be empty", op, name);
		return NULL;
	}
	whole = absolute_path(path);
	if (!whole) {
		process_fail(p, "%s: %s %s: the working directory: %s", op, name, path,
			     errno_text(errno));
		return NULL;
	}
	if (!utf8_valid(whole, strlen(whole))) {
		process_fail(p, "%s: %s %s: the path of the working directory must be UTF-8", op,
			     name, path);
		free(whole);
		return NULL;
	}
	return whole;
}

/* --- calls --- */

/* A whole visit for a function that needs no more than a handle. */
static int64_t visit(int64_t (*function)(struct process *p, int64_t handle), int64_t handle)
{
	struct visit v;

	visit_begin(&v);
	return visit_end(&v, function(v.process, handle));
}

/* A whole visit for a method whose result is a text; otherwise is given if it fails. */
static int64_t text_call(const struct method *m, int64_t handle, char *buf, size_t cap,
			 const char *otherwise)
{
	struct call c = { .method = m, .handle = handle };
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if ((!handle || use_raise_untold(v.process, handle) == 0) &&
	    client_run(v.process, &c, NULL, NULL, NULL) == 0)
		result = text_give(buf, cap, c.text);
	else if (otherwise)
		result = text_give(buf, cap, otherwise);
	free(c.text);
	return visit_end(&v, result);
}

int64_t tls_NewClient(const char *host, int32_t port)
{
	struct call c = { .method = &new_client };
	int64_t result = -1, n = port;
	struct visit v;

	visit_begin(&v);
	if (check_text(v.process, new_client.name, "host", host) &&
	    client_run(v.process, &c, host, NULL, &n) == 0)
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
	if (len > DATA_MAX_BYTES)
		process_fail(v.process, "tls.Write: data of %zu bytes: must not be more than %d",
			     len, DATA_MAX_BYTES);
	else if (!data && len > 0)
		process_fail(v.process, "tls.Write: data: must not be NULL");
	else
		result = data_write(v.process, handle, data, len);
	return visit_end(&v, result);
}

int64_t tls_SetStrictWrites(int32_t on)
{
	struct visit v;
	int64_t result = -1;

	visit_begin(&v);
	if (on != 0 && on != 1)
		process_fail(v.process, "tls.SetStrictWrites: on %d: must be 0 or 1", on);
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
	if (max_bytes < 1 || max_bytes > DATA_MAX_BYTES)
		process_fail(v.process, "tls.Read: maxBytes %zu: must be between 1 and %d",
			     max_bytes, DATA_MAX_BYTES);
	else if (!buf)
		process_fail(v.process, "tls.Read: buf: must not be NULL");
	else
		result = data_read(v.process, handle, buf, max_bytes);
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
	struct call c = { .method = &set_insecure_skip_verify, .handle = handle };
	int64_t result = -1, n = on;
	struct visit v;

	visit_begin(&v);
	if (use_raise_untold(v.process, handle) == 0)
		result = client_run(v.process, &c, NULL, NULL, &n);
	return visit_end(&v, result);
}

int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds)
{
	struct visit v;

	visit_begin(&v);
	return visit_end(&v, connection_set_timeout(v.process, handle, milliseconds));
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
	if (key && client_run(v.process, &c, cert, key, NULL) == 0)
		result = c.number;
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

int64_t tls_CloseServerContext(int64_t ctx)
{
	return visit(connection_close_context, ctx);
}

int64_t tls_SetCaBundle(const char *path)
{
	struct visit v;
	int64_t result = -1;
	char *whole;

	visit_begin(&v);
	whole = check_path(v.process, "tls.SetCaBundle", "path", path);
	if (whole)
		result = client_trust(v.process, whole);
	free(whole);
	return visit_end(&v, result);
}

int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap)
{
	return text_call(&peer_cert_subject, handle, buf, cap, NULL);
}

int64_t tls_Backend(char *buf, size_t cap)
{
	return text_call(&backend, 0, buf, cap, "stub");
}

int64_t tls_Version(int64_t handle, char *buf, size_t cap)
{
	if (handle)
		return text_call(&version_of_connection, handle, buf, cap, NULL);
	return text_call(&version_of_library, 0, buf, cap, "");
}

int64_t tls_Cancel(void)
{
	process_cancel(); /* no visit: see there */
	return 0;
}

int64_t tls_LastError(char *buf, size_t cap)
{
	char text[ERROR_BYTES] = "out of memory";
	struct visit v;

	visit_begin(&v);
	if (v.process) {
		pthread_mutex_lock(&v.process->mu);
		memcpy(text, v.process->error, sizeof text);
		pthread_mutex_unlock(&v.process->mu);
	}
	return visit_end(&v, text_give(buf, cap, text));
}

/* When the library is unloaded, at the latest at the end of the process. If another thread is in
 * a call at that moment, nothing is freed. */
__attribute__((destructor)) static void unload(void)
{
	struct process *p = process_retire();

	if (!p)
		return;
	client_end(p);
	process_free(p);
	owned_end();
}
