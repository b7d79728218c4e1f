/*
 * The baseline: libssl in the client's own process, blocking calls on a blocking
 * socket. It verifies as tlsd does: the chain against the CA, and the address.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link.h"
#include "stream.h"

struct link {
	SSL *ssl;
	int fd;
};

const bool link_does_tls = true;

static SSL_CTX *ctx;
static struct sockaddr_in sink = { .sin_family = AF_INET };

static _Noreturn void tls_failed(const char *what)
{
	ERR_print_errors_fp(stderr);
	die("in-process: %s failed", what);
}

void link_setup(const struct link_options *o)
{
	ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_load_verify_locations(ctx, o->ca, NULL) != 1)
		tls_failed("SSL_CTX_new");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (o->release)
		SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	sink.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sink.sin_port = htons((uint16_t)o->port);
}

const char *link_version(void)
{
	return OpenSSL_version(OPENSSL_VERSION);
}

struct link *link_open(void)
{
	struct link *l = must_alloc(sizeof *l);
	int on = 1;

	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&sink, sizeof sink) != 0)
		die("in-process: connect: %s", strerror(errno));
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	l->ssl = SSL_new(ctx);
	if (!l->ssl || SSL_set_fd(l->ssl, l->fd) != 1 ||
	    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(l->ssl), "127.0.0.1") != 1 ||
	    SSL_connect(l->ssl) != 1)
		tls_failed("SSL_connect");
	if (SSL_version(l->ssl) != TLS1_3_VERSION)
		die("in-process: negotiated %s", SSL_get_version(l->ssl));
	return l;
}

void link_write(struct link *l, const void *data, size_t n)
{
	size_t sent;

	if (SSL_write_ex(l->ssl, data, n, &sent) != 1 || sent != n)
		tls_failed("SSL_write");
}

size_t link_read(struct link *l, void *to, size_t most)
{
	size_t got;

	if (SSL_read_ex(l->ssl, to, most, &got) != 1)
		tls_failed("SSL_read");
	return got;
}

void link_close(struct link *l)
{
	if (SSL_shutdown(l->ssl) < 0)
		tls_failed("SSL_shutdown");
	SSL_free(l->ssl);
	close(l->fd);
	free(l);
}
