/*
 * A libssl that goes wrong on purpose: the real one, on which it depends, but for
 * one function. Built with -DHANG or -DCRASH.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <unistd.h>

int SSL_read(void *ssl, void *buf, int num);

int SSL_read(void *ssl, void *buf, int num)
{
	(void)ssl;
	(void)buf;
	(void)num;
#ifdef HANG
	for (;;)
		pause();
#else
	*(volatile int *)8 = 1;
	return -1;
#endif
}
