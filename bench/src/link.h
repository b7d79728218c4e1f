/*
 * link.h - how a client reaches the sink
 *
 * client.c does the same work over each kind of link. A program has one kind: inprocess.c,
 * plugin.c, plain.c or hop.c. A failure ends the program.
 */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>

struct link;

struct link_options {
	const char *ca;   /* PEM file */
	const char *path; /* plugin: TlsPlugin.so; hop: one relay, or two with a comma between */
	int port;         /* of 127.0.0.1 */
	bool release;     /* in-process: SSL_MODE_RELEASE_BUFFERS */
};

/* Whether link_open has done a TLS handshake when it returns. If not, a proxy or a relay may do it
 * later, and only an answer of the sink shows that the handshake was done. */
extern const bool link_does_tls;

void link_setup(const struct link_options *o); /* once, before any link is opened */
const char *link_version(void);                /* of the TLS library */

struct link *link_open(void);
void link_write(struct link *l, const void *data, size_t n);
size_t link_read(struct link *l, void *to, size_t most); /* at least one byte */
void link_close(struct link *l);

#endif
