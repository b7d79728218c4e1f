/*
 * records CA CERT KEY pingpong SIZE SECONDS    messages to and fro
 * records CA CERT KEY write SIZE SECONDS       pieces sealed, and then opened
 *
 * A client and a server of libssl talk in one thread, through memory. This shows the cost of TLS
 * without system calls. With "write", the CPU times of sealing and opening are measured too.
 */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "stream.h"

enum {
	WARM_UP = 20,
	BETWEEN_LOOKS = 64, /* round trips between two looks at the clock */
};

static SSL *client, *server;
static size_t size;
static uint8_t *out, *in;

static void must(bool good, const char *what)
{
	if (good)
		return;
	ERR_print_errors_fp(stderr);
	die("records: %s failed", what);
}

static SSL_CTX *context(const SSL_METHOD *m)
{
	SSL_CTX *ctx = SSL_CTX_new(m);

	must(ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
	     SSL_CTX_set_ciphersuites(ctx, "TLS_AES_256_GCM_SHA384") == 1, "SSL_CTX_new");
	return ctx;
}

static void connect_both(const char *ca, const char *cert, const char *key)
{
	SSL_CTX *c = context(TLS_client_method()), *s = context(TLS_server_method());
	BIO *to_server = BIO_new(BIO_s_mem()), *to_client = BIO_new(BIO_s_mem());
	int i;

	must(SSL_CTX_load_verify_locations(c, ca, NULL) == 1, "the CA");
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
	must(SSL_CTX_use_certificate_chain_file(s, cert) == 1 &&
		SSL_CTX_use_PrivateKey_file(s, key, SSL_FILETYPE_PEM) == 1, "the certificate");
	SSL_CTX_set_num_tickets(s, 0);
	client = SSL_new(c);
	server = SSL_new(s);
	must(client && server && to_server && to_client && BIO_up_ref(to_server) &&
		BIO_up_ref(to_client), "SSL_new");
	SSL_set_bio(client, to_client, to_server);
	SSL_set_bio(server, to_server, to_client);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	for (i = 0; i < 10 && !(SSL_is_init_finished(client) &&
		SSL_is_init_finished(server)); i++) {
		SSL_do_handshake(client);
		SSL_do_handshake(server);
	}
	must(i < 10, "the handshake");
	ERR_clear_error();
}

static void seal(SSL *from)
{
	size_t n;

	must(SSL_write_ex(from, out, size, &n) == 1 && n == size, "SSL_write");
}

static void open_all(SSL *at)
{
	size_t n;

	for (size_t have = 0; have < size; have += n)
		must(SSL_read_ex(at, in + have, size - have, &n) == 1, "SSL_read");
}

int main(int argc, char **argv)
{
	double length, until, n = 0, sealing = 0, opening = 0;
	char extra[80] = "";

	if (argc != 7)
		die("usage: records CA CERT KEY pingpong|write SIZE SECONDS");
	size = strtoul(argv[5], NULL, 10);
	length = atof(argv[6]);
	if (size == 0 || size > PIECE_MAX)
		die("records: a piece has one byte to 16 MiB");
	out = must_alloc(size);
	in = must_alloc(size);
	memset(out, 'x', size);
	connect_both(argv[1], argv[2], argv[3]);
	for (int i = 0; i < WARM_UP; i++) {
		seal(client);
		open_all(server);
	}
	measure_start();
	until = seconds() + length;
	if (strcmp(argv[4], "pingpong") == 0) {
		for (; seconds() < until; n += BETWEEN_LOOKS)
			for (int i = 0; i < BETWEEN_LOOKS; i++) {
				seal(client);
				open_all(server);
				seal(server);
				open_all(client);
			}
	} else {
		for (double then, between; seconds() < until; n += (double)size) {
			then = cpu_seconds();
			seal(client);
			between = cpu_seconds();
			sealing += between - then;
			open_all(server);
			opening += cpu_seconds() - between;
		}
		snprintf(extra, sizeof extra, " seal=%.9f open=%.9f", sealing, opening);
	}
	must(memcmp(in, out, size) == 0, "the comparison of what went in with what came out");
	measure_end(n, extra);
	return 0;
}
