/*
 * fakeplugin.c - a stand-in for TlsPlugin.so that does no TLS
 *
 * It appends each call, with its arguments, as a line to the file $FAKE_LOG,
 * so that a test sees what domhost passes. Read gives back what Write was
 * given. These arguments make a call fail or misbehave:
 *
 *   host "refused"      fails with the text of a refused connection
 *   host "two-lines"    fails with a text that has a line break in it
 *   host "silent"       fails and leaves LastError empty
 *   host "wordy"        fails with a text of 9000 bytes
 *   handle 99           has a subject of 9000 bytes
 *   handle 98           claims to have read more than was asked for
 *   a port that is out of range     fails, as in the real plugin
 *   maxBytes that is out of range   fails, as in the real plugin
 */
#include "../../../../cmd/tlsshim/plugin/tlsplugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_TEXT 9000

static char last_error[LONG_TEXT + 1];
static char sent[1 << 16];
static size_t sent_len;
static int64_t last_handle;

static void record(const char *call)
{
	const char *path = getenv("FAKE_LOG");
	FILE *log = path != NULL ? fopen(path, "a") : NULL;
	if (log != NULL) {
		fprintf(log, "%s\n", call);
		fclose(log);
	}
}

#define RECORD(...)                                       \
	do {                                              \
		char line_[512];                          \
		snprintf(line_, sizeof line_, __VA_ARGS__); \
		record(line_);                            \
	} while (0)

static int64_t fail(const char *text)
{
	snprintf(last_error, sizeof last_error, "%s", text);
	return -1;
}

static int64_t get(const char *text, char *buf, size_t cap)
{
	return snprintf(buf, cap, "%s", text);
}

static int64_t connect_to(const char *host, int32_t port)
{
	char text[80];
	if (port < 1 || port > 65535) {
		snprintf(text, sizeof text, "fake: port %" PRId32 " is not 1 to 65535", port);
		return fail(text);
	}
	if (strcmp(host, "refused") == 0)
		return fail("fake: connect to refused: connection refused");
	if (strcmp(host, "two-lines") == 0)
		return fail("fake: first\nsecond");
	if (strcmp(host, "silent") == 0)
		return fail("");
	if (strcmp(host, "wordy") == 0) {
		memset(last_error, 'w', LONG_TEXT);
		last_error[LONG_TEXT] = '\0';
		return -1;
	}
	return ++last_handle;
}

int64_t tls_NewClient(const char *host, int32_t port)
{
	RECORD("NewClient %s %" PRId32, host, port);
	return connect_to(host, port);
}

int64_t tls_Handshake(int64_t handle)
{
	RECORD("Handshake %" PRId64, handle);
	return 0;
}

int64_t tls_Write(int64_t handle, const void *data, size_t len)
{
	char hex[2 * 64 + 1] = "";
	for (size_t i = 0; i < len && i < 64; i++)
		snprintf(hex + 2 * i, 3, "%02x", ((const unsigned char *)data)[i]);
	RECORD("Write %" PRId64 " %zu %s", handle, len, hex);
	if (len > sizeof sent - sent_len)
		return fail("fake: too much was written");
	memcpy(sent + sent_len, data, len);
	sent_len += len;
	return (int64_t)len;
}

int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes)
{
	RECORD("Read %" PRId64 " %zu", handle, max_bytes);
	if (max_bytes < 1 || max_bytes > 1 << 24)
		return fail("fake: maxBytes is not 1 to 16777216");
	if (handle == 98)
		return (int64_t)max_bytes + 1;
	size_t n = sent_len < max_bytes ? sent_len : max_bytes;
	memcpy(buf, sent, n);
	memmove(sent, sent + n, sent_len - n);
	sent_len -= n;
	return (int64_t)n;
}

int64_t tls_Close(int64_t handle)
{
	RECORD("Close %" PRId64, handle);
	return 0;
}

int64_t tls_SetInsecureSkipVerify(int64_t handle, int32_t on)
{
	RECORD("SetInsecureSkipVerify %" PRId64 " %" PRId32, handle, on);
	return 0;
}

int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds)
{
	RECORD("SetTimeout %" PRId64 " %" PRId32, handle, milliseconds);
	return 0;
}

int64_t tls_NewServerContext(const char *cert_file, const char *key_file)
{
	RECORD("NewServerContext %s %s", cert_file, key_file);
	return ++last_handle;
}

int64_t tls_Accept(int64_t ctx, const char *host, int32_t port)
{
	RECORD("Accept %" PRId64 " %s %" PRId32, ctx, host, port);
	if (*host == '\0' && port == 0) /* accepts at the addresses of earlier Listens */
		return ++last_handle;
	return connect_to(host, port);
}

int64_t tls_CloseServerContext(int64_t ctx)
{
	RECORD("CloseServerContext %" PRId64, ctx);
	return 0;
}

int64_t tls_SetOption(int64_t handle, const char *name, const char *value)
{
	RECORD("SetOption %" PRId64 " %s %s", handle, name, value);
	return strcmp(name, "unknown") == 0 ? fail("fake: unknown option") : 0;
}

int64_t tls_Info(int64_t handle, const char *name, char *buf, size_t cap)
{
	RECORD("Info %" PRId64 " %s", handle, name);
	return strcmp(name, "unknown") == 0 ? fail("fake: unknown fact") : get("fact", buf, cap);
}

int64_t tls_SetCertificate(int64_t handle, const char *server_name, const char *cert_file,
	const char *key_file)
{
	RECORD("SetCertificate %" PRId64 " %s %s %s", handle, server_name, cert_file, key_file);
	return 0;
}

int64_t tls_Listen(int64_t ctx, const char *host, int32_t port)
{
	RECORD("Listen %" PRId64 " %s %" PRId32, ctx, host, port);
	return port == 0 ? 4433 : port;
}

int64_t tls_ReadPlain(int64_t handle, void *buf, size_t max_bytes)
{
	RECORD("ReadPlain %" PRId64 " %zu", handle, max_bytes);
	if (max_bytes < 2)
		return fail("fake: maxBytes is too small");
	memcpy(buf, "ok", 2);
	return 2;
}

int64_t tls_WritePlain(int64_t handle, const void *data, size_t len)
{
	RECORD("WritePlain %" PRId64 " %zu %.*s", handle, len, (int)len, (const char *)data);
	return (int64_t)len;
}

int64_t tls_Wait(int32_t milliseconds)
{
	static int waits;
	RECORD("Wait %" PRId32, milliseconds);
	return waits++ % 2 == 0 ? 1 : last_handle; /* in turn handle 1 and the newest handle */
}

int64_t tls_Shutdown(int64_t handle)
{
	RECORD("Shutdown %" PRId64, handle);
	return 0;
}

int64_t tls_ErrorKind(char *buf, size_t cap)
{
	RECORD("ErrorKind");
	return get(last_error[0] != '\0' ? "connect" : "", buf, cap);
}

int64_t tls_SetCaBundle(const char *path)
{
	RECORD("SetCaBundle %s", path);
	return 0;
}

int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap)
{
	char text[LONG_TEXT + 1] = "/CN=fake";
	RECORD("PeerCertSubject %" PRId64, handle);
	if (handle == 99)
		memset(text, 's', LONG_TEXT);
	return get(text, buf, cap);
}

int64_t tls_Backend(char *buf, size_t cap)
{
	RECORD("Backend");
	return get("openssl", buf, cap);
}

int64_t tls_Version(int64_t handle, char *buf, size_t cap)
{
	RECORD("Version %" PRId64, handle);
	return get(handle == 0 ? "Fake 1.0" : "TLSv1.3", buf, cap);
}

int64_t tls_LastError(char *buf, size_t cap)
{
	RECORD("LastError");
	return get(last_error, buf, cap);
}
