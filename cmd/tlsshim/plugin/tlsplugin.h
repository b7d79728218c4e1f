/*
 * tlsplugin.h - the C interface of TlsPlugin.so
 *
 * TLS connections that live in another process: each call is forwarded to the
 * daemon tlsd, which owns OpenSSL and every connection. Nothing that OpenSSL or
 * a peer does can hurt the process that calls these functions.
 *
 * Rules for all functions
 *
 *   - They can be called from any thread, and several may wait at once. They
 *     can be called after fork() in the child, which then has a session of its
 *     own: handles of the parent are unknown in it.
 *   - They return a result >= 0, or -1, and then tls_LastError has the text.
 *   - Strings are NUL-terminated UTF-8. Paths may be relative to the caller's
 *     working directory.
 *   - The functions with buf and cap work like snprintf: they return the full
 *     length without the NUL, write at most cap bytes, always with a NUL, and
 *     take NULL, 0 to ask for the length only.
 *   - The library starts no threads, installs no signal handlers, and never
 *     raises SIGPIPE. A call leaves errno as it was, and its thread cannot be
 *     cancelled during it.
 *   - If the daemon goes away, waiting calls and later calls on the handles of
 *     that time fail as lost. tls_NewClient, tls_NewServerContext and
 *     tls_SetCaBundle then work again, with new handles and the same CA bundle.
 *     Nothing is ever sent a second time.
 *
 * Where the daemon is found: $TLSD_SOCKET, else $XDG_RUNTIME_DIR/tlsd.sock,
 * else /run/tlsd.sock. If none answers, a private tlsd is started from
 * $TLSD_EXE or $PATH, unless TLSD_AUTOSTART is 0; it leaves when idle. It logs
 * to the file $TLSD_LOG, if that is set. A daemon is talked to only if root or
 * the caller's own user runs it.
 */
#ifndef TLSPLUGIN_H
#define TLSPLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header. A program that is compiled with it runs with each TlsPlugin.so
 * of the same major version that is not older. */
#define TLSPLUGIN_VERSION_MAJOR 0
#define TLSPLUGIN_VERSION_MINOR 1
#define TLSPLUGIN_VERSION_PATCH 0
#define TLSPLUGIN_VERSION \
	(TLSPLUGIN_VERSION_MAJOR * 10000 + TLSPLUGIN_VERSION_MINOR * 100 + TLSPLUGIN_VERSION_PATCH)

#ifdef __cplusplus
extern "C" {
#endif

/* Opens a TCP connection to host (name or address), port 1-65535.
 * Returns a connection handle. TLS starts with tls_Handshake. */
int64_t tls_NewClient(const char *host, int32_t port);

/* Does the TLS handshake and verifies the server's certificate. Returns 0. */
int64_t tls_Handshake(int64_t handle);

/* Sends all len bytes (0 to 16777216), or fails. Returns len.
 *
 * It may return when the data is on its way to the daemon, before it has left. Then
 * an error is not lost: the next call on the handle raises it, whichever
 * it is. That may be tls_Close, which then frees the handle all the same. Order is
 * kept, and tls_Close waits until everything that was written has left, unless another
 * thread waits in a tls_Write of the handle. So does the end of the process, for up
 * to 5 s. What runs ahead is bounded: to 128 calls (32 without shared memory) and 2 MiB a connection. See
 * tls_SetStrictWrites. */
int64_t tls_Write(int64_t handle, const void *data, size_t len);

/* 1: from now on each tls_Write of this process returns only when everything
 * has left, and raises its own error. 0: as described there, which is how it is at first,
 * unless the environment has TLSD_STRICT_WRITES=1. Returns 0. */
int64_t tls_SetStrictWrites(int32_t on);

/* Waits for data and reads at most max_bytes (1 to 16777216) into buf.
 * Returns the number of bytes, or 0: the peer has ended its direction. */
int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes);

/* Frees the handle. Calls of other threads that wait on it end with an error. The daemon
 * then sends close_notify, and sees to it for a second, unless it was started with another
 * --close-timeout, that all which was written arrives. This it does though the process
 * ends meanwhile. After a tls_Write that was cut short there is no close_notify: the peer
 * shall not take a part for all. Returns 0. */
int64_t tls_Close(int64_t handle);

/* 1 turns verification of the server's certificate off, 0 on again, for this
 * connection, before its handshake. For tests only. Returns 0. */
int64_t tls_SetInsecureSkipVerify(int64_t handle, int32_t on);

/* Bounds the waits of later calls on the handle, in milliseconds: each
 * tls_Handshake, each tls_Read and each 64 KiB of a tls_Write of a connection,
 * each tls_Accept of a context. A call that meets its bound fails, and its text
 * says so. 0: the daemon's bounds, which are none for tls_Read and tls_Accept
 * unless it was started with others. Returns 0. */
int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds);

/* Loads a certificate chain and its private key (PEM files).
 * Returns a context handle. */
int64_t tls_NewServerContext(const char *cert_file, const char *key_file);

/* Waits for a client on host (an address of this machine), port 1-65535, and does the
 * handshake. Returns a connection handle. Listening goes on between calls,
 * until tls_CloseServerContext. */
int64_t tls_Accept(int64_t ctx, const char *host, int32_t port);

/* Stops listening and frees the context. Waiting Accepts end with an error;
 * accepted connections live on. Returns 0. */
int64_t tls_CloseServerContext(int64_t ctx);

/* Trusts the CA certificates in this PEM file, instead of the system's, for
 * clients opened from now on. Returns 0. */
int64_t tls_SetCaBundle(const char *path);

/* The subject of the peer's certificate, "/CN=example.com"; "" if it has
 * shown none. */
int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap);

/* "openssl", or "stub" if there is no daemon or it has no libssl. Never fails. */
int64_t tls_Backend(char *buf, size_t cap);

/* The negotiated version of a connection, "TLSv1.3"; with handle 0 the version
 * of the library, which is "" without a daemon or a library, and never fails. */
int64_t tls_Version(int64_t handle, char *buf, size_t cap);

/* Ends every call of this process that waits at this moment, whichever it is and
 * whatever for. Returns 0 and never fails.
 *
 * Who: any thread, and a signal handler, also one that has interrupted a call of
 * this library. It takes no lock, allocates nothing and leaves errno. In a forked
 * child it concerns the child's calls only. If no call waits, it does nothing:
 * calls that begin after it are not affected.
 *
 * What becomes of a call: one whose answer is on its way succeeds as if nothing
 * had been. Any other fails, and tls_LastError says "cancelled by the caller"; but
 * tls_Backend gives "stub" and tls_Version(0) "". A tls_Close is hurried rather
 * than ended: it frees the handle, and raises an error if that cuts short what
 * a tls_Write has left to be sent after its return, which goes on otherwise. A
 * cancelled tls_Read has taken no data. After a cancelled tls_Write of which some
 * had left, the connection cannot be written to, and after a cancelled tls_Handshake
 * it can only be closed. A private tlsd that was being started goes on starting, for
 * the next call.
 *
 * When: at once as a rule. But a call that was handed over to the daemon cannot
 * be taken back, so the daemon is told, and its answer is waited for. One that
 * does not answer within 5 s, because it hangs, or does not read a tls_Write to
 * the end, is given up: the session and all its handles are then lost. */
int64_t tls_Cancel(void);

/* The text of this process's most recent error, at most 4095 bytes; "" if there
 * was none. Success does not clear it, and the failure of another thread
 * replaces it. Never fails. */
int64_t tls_LastError(char *buf, size_t cap);

#ifdef __cplusplus
}
#endif
#endif
