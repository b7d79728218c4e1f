/* Implements link.h with TlsPlugin.so, which forwards each call to tlsd: the contestant tlsd. */
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "link.h"

struct link {
	int64_t handle;
};

const bool link_does_tls = true;

static struct {
	__typeof__(&tls_NewClient) NewClient;
	__typeof__(&tls_Handshake) Handshake;
	__typeof__(&tls_Write) Write;
	__typeof__(&tls_Read) Read;
	__typeof__(&tls_Close) Close;
	__typeof__(&tls_SetCaBundle) SetCaBundle;
	__typeof__(&tls_Backend) Backend;
	__typeof__(&tls_Version) Version;
	__typeof__(&tls_LastError) LastError;
} f;

static int port;

static _Noreturn void call_failed(const char *what)
{
	char text[1024] = "";

	f.LastError(text, sizeof text);
	die("plugin: %s: %s", what, text);
}

void link_setup(const struct link_options *o)
{
	void *so = plugin_open(o->path);
	char backend[16];

	plugin_find(so, "tls_NewClient", &f.NewClient);
	plugin_find(so, "tls_Handshake", &f.Handshake);
	plugin_find(so, "tls_Write", &f.Write);
	plugin_find(so, "tls_Read", &f.Read);
	plugin_find(so, "tls_Close", &f.Close);
	plugin_find(so, "tls_SetCaBundle", &f.SetCaBundle);
	plugin_find(so, "tls_Backend", &f.Backend);
	plugin_find(so, "tls_Version", &f.Version);
	plugin_find(so, "tls_LastError", &f.LastError);
	port = o->port;
	f.Backend(backend, sizeof backend);
	if (strcmp(backend, "openssl") != 0)
		call_failed("the backend is not openssl");
	if (f.SetCaBundle(o->ca) < 0)
		call_failed("SetCaBundle");
}

const char *link_version(void)
{
	static char text[128];

	if (f.Version(0, text, sizeof text) < 0)
		call_failed("Version");
	return text;
}

struct link *link_open(void)
{
	struct link *l = must_alloc(sizeof *l);

	l->handle = f.NewClient("127.0.0.1", port);
	if (l->handle < 0)
		call_failed("NewClient");
	if (f.Handshake(l->handle) < 0)
		call_failed("Handshake");
	return l;
}

void link_write(struct link *l, const void *data, size_t n)
{
	if (f.Write(l->handle, data, n) != (int64_t)n)
		call_failed("Write");
}

size_t link_read(struct link *l, void *to, size_t most)
{
	int64_t n = f.Read(l->handle, to, most);

	if (n < 0)
		call_failed("Read");
	if (n == 0)
		die("plugin: Read: the sink has ended the stream");
	return (size_t)n;
}

void link_close(struct link *l)
{
	if (f.Close(l->handle) < 0)
		call_failed("Close");
	free(l);
}
