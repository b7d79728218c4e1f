/*
 * What the wrappers of faultssl have in common. A wrapper is one line, which the builder makes of
 * the prototypes in openssl/testdata/abi.c:
 *
 *	VALUE(int, SSL_set_fd, (void *a, int b), (a, b))    a function with a result
 *	NOTHING(SSL_free, (void *a), (a))                   a function without a result
 *	BYTES(int, SSL_read, (void *a, void *b, int c), (a, b, c), c)
 *
 * In the last line c is the number of bytes that the caller asks for.
 *
 * Pointers of all types are void * here: to the machine they are the same.
 */
#ifndef FAULTSSL_H
#define FAULTSSL_H

#include <stdint.h>

/* What a wrapper must do at one call. */
struct fault {
	enum { GO_ON, RETURN, REPLACE, SHORTEN, STALE } kind;
	/* RETURN, REPLACE: the result; STALE: the number of errors; SHORTEN: the most bytes */
	intptr_t value;
	int more;       /* if set: the result is value more than the number of bytes asked for */
};

/*
 * faultssl_next counts a call, and crashes, hangs, or says what the wrapper must do. errno does not
 * change.
 */
struct fault faultssl_next(const char *function);

/* faultssl_stale leaves n errors on the thread's queue. errno does not change. */
void faultssl_stale(intptr_t n);

/* faultssl_real is the function of that name in the libraries behind this one. */
void *faultssl_real(const char *function);

#define REAL(result, name, parameters) \
	static void *found_; \
	void *there_ = __atomic_load_n(&found_, __ATOMIC_ACQUIRE); \
	result (*real) parameters; \
	if (!there_) { \
		there_ = faultssl_real(#name); \
		__atomic_store_n(&found_, there_, __ATOMIC_RELEASE); \
	} \
	__builtin_memcpy(&real, &there_, sizeof real)

#define VALUE(result, name, parameters, arguments) \
	result name parameters; \
	result name parameters \
	{ \
		REAL(result, name, parameters); \
		struct fault fault = faultssl_next(#name); \
		if (fault.kind == RETURN) \
			return (result)fault.value; \
		result value = real arguments; \
		if (fault.kind == STALE) \
			faultssl_stale(fault.value); \
		return fault.kind == REPLACE ? (result)fault.value : value; \
	}

#define BYTES(result, name, parameters, arguments, count) \
	result name parameters; \
	result name parameters \
	{ \
		REAL(result, name, parameters); \
		struct fault fault = faultssl_next(#name); \
		if (fault.more) \
			fault.value += count; \
		if (fault.kind == RETURN) \
			return (result)fault.value; \
		if (fault.kind == SHORTEN && count > fault.value) \
			count = (int)fault.value; \
		result value = real arguments; \
		if (fault.kind == STALE) \
			faultssl_stale(fault.value); \
		return fault.kind == REPLACE ? (result)fault.value : value; \
	}

#define NOTHING(name, parameters, arguments) \
	void name parameters; \
	void name parameters \
	{ \
		REAL(void, name, parameters); \
		struct fault fault = faultssl_next(#name); \
		if (fault.kind == RETURN) \
			return; \
		real arguments; \
		if (fault.kind == STALE) \
			faultssl_stale(fault.value); \
	}

#endif
