/*
 * The functions of tlsplugin.h. Most of them are one call to tlsd, described by a method.
 */
#define _POSIX_C_SOURCE 200809L
#pragma GCC visibility push(default)
#include "tlsplugin.h"
#pragma GCC visibility pop

#include <stdlib.h>

#include "client.h"
#include "connection.h"
#include "data.h"
#include "plain.h"
#include "text.h"
#include "watch.h"

static const struct method
	new_client = { .name = "tls.NewClient", .texts = { { "host", PLAIN } }, .number = true,
		       .result = NUMBER, .flags = OPENS | MAKES_HANDLE | SETTINGS },
	set_insecure_skip_verify = { .name = "tls.SetInsecureSkipVerify", .number = true },
	set_certificate = { .name = "tls.SetCertificate",
			    .texts = { { "serverName", PLAIN }, { "certFile", PATH },
				       { "keyFile", PATH } } },
	listen_ = { .name = "tls.Listen", .texts = { { "host", PLAIN } }, .number = true,
		    .result = NUMBER },
	peer_cert_subject = { .name = "tls.PeerCertSubject", .result = TEXT },
	info = { .name = "tls.Info", .texts = { { "name", PLAIN } }, .result = TEXT },
	version_of_connection = { .name = "tls.Version", .result = TEXT },
	version_of_library = { .name = "tls.Version", .result = TEXT, .flags = OPENS | QUIET },
	backend = { .name = "tls.Backend", .result = TEXT, .flags = OPENS | QUIET };

/* --- functions without a call to tlsd --- */

static int64_t set_strict(struct process *p, struct call *c)
{
	if (c->n != 0 && c->n != 1)
		return fail(p, "params", "tls.SetStrictWrites", 0, "on %d: must be 0 or 1",
			    (int)c->n);
	if (p)
		atomic_store(&p->strict, c->n != 0);
	return p ? 0 : -1;
}

static int64_t wait_for_handle(struct process *p, struct call *c)
{
	return watch_wait(p, (int32_t)c->n);
}

static int64_t last_error(struct process *p, struct call *c)
{
	char text[ERROR_BYTES];

	error_text(p, text);
	return text_give(c->buf, c->room, text);
}

static int64_t last_kind(struct process *p, struct call *c)
{
	return text_give(c->buf, c->room, error_kind(p).name);
}

static int64_t last_code(struct process *p, struct call *c)
{
	(void)c;
	return error_kind(p).code;
}

/* --- the functions --- */

static int64_t number(struct process *p, struct call *c)
{
	return client_run(p, c) < 0 ? -1 : c->number;
}

static int64_t text(struct process *p, struct call *c)
{
	const char *result = client_run(p, c) == 0 ? c->text : c->otherwise;

	return result ? text_give(c->buf, c->room, result) : -1;
}

/* Calls the function in a visit. The functions that return the last error do not change it. */
static int64_t visit(int64_t (*function)(struct process *p, struct call *c), struct call *c)
{
	bool reads_error = function == last_error || function == last_kind || function == last_code;
	struct visit v;
	int64_t result;

	visit_begin(&v);
	result = function(v.process, c);
	free(c->text);
	if (result >= 0 && !reads_error)
		error_clear(v.process);
	visit_end(&v);
	return result;
}

int64_t tls_NewClient(const char *host, int32_t port)
{
	return visit(number, &(struct call){ .method = &new_client, .texts = { host }, .n = port });
}

int64_t tls_Handshake(int64_t handle)
{
	return visit(connection_handshake, &(struct call){ .handle = handle });
}

int64_t tls_Write(int64_t handle, const void *data, size_t len)
{
	return visit(data_write, &(struct call){ .handle = handle, .blob = data, .blob_len = len });
}

int64_t tls_SetStrictWrites(int32_t on)
{
	return visit(set_strict, &(struct call){ .n = on });
}

int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes)
{
	return visit(data_read, &(struct call){ .handle = handle, .buf = buf, .room = max_bytes });
}

int64_t tls_ReadPlain(int64_t handle, void *buf, size_t max_bytes)
{
	return visit(plain_read, &(struct call){ .handle = handle, .buf = buf,
		     .room = max_bytes });
}

int64_t tls_WritePlain(int64_t handle, const void *data, size_t len)
{
	return visit(plain_write, &(struct call){ .handle = handle, .blob = data,
		     .blob_len = len });
}

int64_t tls_Shutdown(int64_t handle)
{
	return visit(connection_shutdown, &(struct call){ .handle = handle });
}

int64_t tls_Close(int64_t handle)
{
	return visit(connection_close, &(struct call){ .handle = handle });
}

int64_t tls_Descriptor(int64_t handle)
{
	return visit(connection_descriptor, &(struct call){ .handle = handle });
}

int64_t tls_Wait(int32_t milliseconds)
{
	return visit(wait_for_handle, &(struct call){ .n = milliseconds });
}

int64_t tls_SetInsecureSkipVerify(int64_t handle, int32_t on)
{
	return visit(number, &(struct call){ .method = &set_insecure_skip_verify,
		     .handle = handle, .n = on });
}

int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds)
{
	return visit(connection_set_timeout, &(struct call){ .handle = handle, .n = milliseconds });
}

int64_t tls_SetOption(int64_t handle, const char *name, const char *value)
{
	return visit(connection_set_option, &(struct call){ .handle = handle,
		     .texts = { name, value } });
}

int64_t tls_SetCertificate(int64_t handle, const char *server_name, const char *cert_file,
			   const char *key_file)
{
	return visit(number, &(struct call){ .method = &set_certificate, .handle = handle,
		     .texts = { server_name, cert_file, key_file } });
}

int64_t tls_NewServerContext(const char *cert_file, const char *key_file)
{
	return visit(connection_new_context, &(struct call){ .texts = { cert_file, key_file } });
}

int64_t tls_Listen(int64_t ctx, const char *host, int32_t port)
{
	return visit(number, &(struct call){ .method = &listen_, .handle = ctx, .texts = { host },
		     .n = port });
}

int64_t tls_Accept(int64_t ctx, const char *host, int32_t port)
{
	return visit(connection_accept, &(struct call){ .handle = ctx, .texts = { host },
		     .n = port });
}

int64_t tls_CloseServerContext(int64_t ctx)
{
	return visit(connection_close_context, &(struct call){ .handle = ctx });
}

int64_t tls_SetCaBundle(const char *path)
{
	return visit(client_set_ca, &(struct call){ .texts = { path } });
}

int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap)
{
	return visit(text, &(struct call){ .method = &peer_cert_subject, .handle = handle,
		     .buf = buf, .room = cap });
}

int64_t tls_Info(int64_t handle, const char *name, char *buf, size_t cap)
{
	return visit(text, &(struct call){ .method = &info, .handle = handle, .texts = { name },
		     .buf = buf, .room = cap });
}

int64_t tls_Backend(char *buf, size_t cap)
{
	return visit(text, &(struct call){ .method = &backend, .buf = buf, .room = cap,
		     .otherwise = "stub" });
}

int64_t tls_Version(int64_t handle, char *buf, size_t cap)
{
	const struct method *m = handle ? &version_of_connection : &version_of_library;

	return visit(text, &(struct call){ .method = m, .handle = handle, .buf = buf, .room = cap,
		     .otherwise = handle ? NULL : "" });
}

int64_t tls_Cancel(void)
{
	process_cancel(); /* without a visit, which a signal handler cannot make */
	return 0;
}

int64_t tls_LastError(char *buf, size_t cap)
{
	return visit(last_error, &(struct call){ .buf = buf, .room = cap });
}

int64_t tls_ErrorKind(char *buf, size_t cap)
{
	return visit(last_kind, &(struct call){ .buf = buf, .room = cap });
}

int64_t tls_ErrorCode(void)
{
	return visit(last_code, &(struct call){ .method = NULL });
}

/* Runs when the library is unloaded, at the latest at the end of the process. If another thread is
 * in a call at that moment, nothing is freed. */
__attribute__((destructor)) static void unload(void)
{
	struct process *p = process_retire();

	error_end();
	if (!p)
		return;
	client_end(p);
	errors_free(p);
	process_free(p);
	owned_end();
}
