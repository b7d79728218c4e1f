/*
 * stream.h - what the benchmark's programs have in common
 *
 * The data. The position of a byte in the stream decides its value. The stream consists of blocks
 * of 4096 bytes. A block has its number in the first 8 bytes, and then noise, which is the same in
 * all blocks. So the receiver can check every byte, wherever a read ends, and notices if a byte is
 * lost, doubled or out of place. The check is a memcmp with a block that stays in the first-level
 * cache.
 *
 * The protocol, inside of TLS. A client sends commands to the sink (sink.c), the TLS server of all
 * clients. The sink carries out the commands of a connection one after another. If a command has an
 * answer, the command is complete when the client has received the answer. The list of operations
 * says which commands have none. Numbers are in the machine's own byte order, because both ends are
 * on one machine.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BLOCK = 4096,
	PIECE_MAX = 16 << 20,   /* the largest tls.Write, and so the largest message of ECHO */
	TAKE_MOST = 1 << 20,    /* the sink's largest read */
	SEND_PIECE = 64 * 1024, /* the sink's writes */
	SIP_PIECE = 16 * 1024,  /* the sink's reads for SIP */
};

struct command {
	uint64_t operation, a, b;
};

/* The operations. Here 'a' and 'b' are the numbers in the command. */
enum operation {
	DISCARD = 0x7b01, /* 'a' bytes follow; the answer is 'a', or less if a byte was wrong */
	SOURCE,           /* the answer is the first 'a' bytes of the stream */
	ECHO,             /* 'b' messages of 'a' bytes follow; each is sent back */
	MARK,             /* adds 1 to the counter 'a'; the answer is 'a', or none if 'b' is 0 */
	COUNT,            /* the answer is the value of the counter 'a' */
	SIP,              /* the sink reads slowly until the connection ends; no answer */
	PARK,             /* the answer is 'a'; after it the connection is idle */
};

/* Fills the buffer with the stream from 0 on. n is a multiple of BLOCK. */
void stream_fill(uint8_t *buf, size_t n);
/* Fills the buffer with the stream from offset on. The buffer must have bytes of the stream
 * already, from stream_fill. n and offset are multiples of BLOCK. */
void stream_move(uint8_t *buf, size_t n, uint64_t offset);
/* Says whether the n bytes are the stream from offset on. */
bool stream_check(const uint8_t *buf, size_t n, uint64_t offset);

double seconds(void);     /* of the monotonic clock */
double cpu_seconds(void); /* of this process, user and system */
double median(double *v, int n); /* sorts v */

void *must_alloc(size_t n);
void raise_file_limit(void);

/* Says what went wrong on stderr, and ends the program. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
