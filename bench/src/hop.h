/*
 * hop.h - raw frames between a client and a relay
 *
 * This is the minimum for TLS in another process: numbers instead of names, no JSON and no errors.
 * Only a read has an answer.
 */
#ifndef HOP_H
#define HOP_H

#include <stdint.h>

/* After a frame HOP_WRITE, its n bytes follow. A frame HOP_READ asks for at most n bytes. The
 * answer is the number of bytes (uint32_t) and the bytes. */
enum { HOP_WRITE = 1, HOP_READ };

struct hop_frame {
	uint32_t operation, n;
};

enum {
	HOP_SOCKET = 3,        /* the relay's descriptor */
	HOP_MOST = 128 * 1024, /* the limit of bytes in one answer */
};

#endif
