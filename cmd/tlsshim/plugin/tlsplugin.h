/*
 * tlsplugin.h - the C interface of TlsPlugin.so
 *
 * TLS connections that live in another process. The library forwards each call to the daemon
 * tlsd, which owns OpenSSL and every connection. Nothing that OpenSSL or a peer does can hurt
 * the process that calls these functions.
 *
 * Rules for all functions
 *
 *   - Threads: any thread may call any function, and any number of threads may wait at once.
 *     On one connection a Read and a Write do not wait for each other. Several Reads of one
 *     connection take turns, and so do several Writes.
 *   - Results: >= 0, or -1 for an error. Then tls_LastError has the text and tls_ErrorKind the
 *     kind. Only tls_ErrorCode gives other negative numbers.
 *   - Handles are numbers from 1 to 2147483647. A number is not given out twice.
 *   - Strings are NUL-terminated UTF-8. Parameters are the caller's: the library keeps none of
 *     them after the call. Paths may be relative to the caller's working directory.
 *   - Functions with buf and cap work like snprintf. They return the full length without the
 *     NUL, write at most cap bytes, always with a NUL, and take NULL, 0 to ask for the length.
 *   - Fork: the child may call all functions. It gets a session of its own, and does not know
 *     its parent's handles. It does not disturb the parent's connections.
 *   - The host: the library starts no threads, installs no signal handlers, and raises no
 *     signal. A call leaves errno as it was, and its thread cannot be cancelled during it.
 *   - Descriptors: the library keeps one for the daemon, two for tls_Cancel, one for each
 *     connection, and one for each context that is watched or was asked for it. None of them is
 *     0, 1 or 2, and all are close-on-exec. If the host closes them, the session is lost; a
 *     number that the host has reused is never touched.
 *   - Loss: if the daemon goes away, waiting calls and later calls on the handles of that time
 *     fail as lost. The same happens when the program's effective user changes. After that
 *     tls_NewClient, tls_NewServerContext and tls_SetCaBundle work again at once, with new
 *     handles and the same CA bundle. Nothing is ever sent twice.
 *
 * Where the daemon is found: $TLSD_SOCKET, else the socket of /etc/tlsd/client.conf, else
 * $XDG_RUNTIME_DIR/tlsd.sock, /run/tlsd.sock or /run/tlsd/tlsd.sock. If none answers, a private
 * tlsd is started from $TLSD_EXE or $PATH. That is not done beside a system's tlsd, where
 * client.conf forbids it, if TLSD_AUTOSTART is 0, or if the process's real and effective users or
 * groups differ. It leaves when idle. It logs to the file $TLSD_LOG, if that is set. In a program
 * with more rights than its user (AT_SECURE, getauxval(3)) no variable counts. The library talks to
 * a daemon only if root, the caller's own user, or one of client.conf's trusted-users runs it.
 *
 * A private tlsd is no child of the host. The host gets no SIGCHLD and no zombie of it, and
 * waitpid(-1) does not find it. If the host is process 1 of its namespace or a subreaper
 * (prctl(2)), one child without an exit signal stays as long as that tlsd: a copy of the host that
 * only waits, with the memory that the host had at that moment. wait(2) shows it with __WALL or
 * __WCLONE only. It stays as a zombie until the next tlsd is started, or the host ends. When
 * process 1 of a namespace ends, the kernel ends tlsd, too. Then nothing is sent after the end of
 * the process, whatever tls_Close promises.
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

/* Opens a TCP connection to host, a name or an address, and port, 1 to 65535.
 * Returns a connection handle. TLS starts with tls_Handshake. */
int64_t tls_NewClient(const char *host, int32_t port);

/* Does the TLS handshake and verifies the server's certificate. Returns 0, also if the handshake
 * was done before. Needs two free descriptors for a moment, and one from then on. */
int64_t tls_Handshake(int64_t handle);

/* Writes len bytes, 0 to 16777216. Returns len, or -1: it takes all or fails.
 *
 * It returns when the bytes are on their way, usually before they have left this machine. What
 * is on its way is bounded by the buffer of a socket, a few hundred kilobytes; beyond that the
 * call waits. Bytes arrive in order. What a tls_Write has returned for is sent even if the
 * process ends at once.
 *
 * An error that comes after the return is not lost. The next call on the handle raises it,
 * whichever it is, unless a tls_Read has raised that the connection failed; for tls_Close see
 * there. After such an error every tls_Write fails with it; tls_Read still gives what the peer has
 * sent. A tls_Write that fails after a part of its bytes was sent ends writing: later ones fail,
 * and tls_Close then sends no close_notify, because the peer must not take a part for all. */
int64_t tls_Write(int64_t handle, const void *data, size_t len);

/* 1: from now on each tls_Write of this process returns when all its bytes have left, and raises
 * its own error. 0: as described there, which is the default unless the environment has
 * TLSD_STRICT_WRITES=1. Returns 0. */
int64_t tls_SetStrictWrites(int32_t on);

/* Waits for data and reads at most max_bytes, 1 to 16777216, into buf.
 * Returns the number of bytes, at least 1; or 0 when the peer has ended its direction with
 * close_notify. A connection that was cut without it is an error. */
int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes);

/* Ends writing: sends what was written and then close_notify. Reading goes on. Later tls_Writes
 * fail. Returns 0, also if writing was ended before. */
int64_t tls_Shutdown(int64_t handle);

/* A descriptor for poll(2), select(2) and event loops. That of a connection is readable exactly
 * when a tls_Read would not wait; there is none before the handshake. That of a context is readable
 * exactly when a client waits that a tls_Accept would take, whatever it listens on and when.
 * Returns a descriptor >= 3. It belongs to the library and lives until the handle is closed: do not
 * read, write or close it, and do not change its flags. */
int64_t tls_Descriptor(int64_t handle);

/* Waits for a handle on which a tls_Read or a tls_Accept would not wait, and returns it; 0 if there
 * is none within so many milliseconds. 0 does not wait; a negative number is no bound. The peer's
 * end and an error count, and so does a connection before its handshake, because a tls_Read fails
 * at once. Handles take part if their option watch is 1. Ready handles take turns, so a busy one
 * does not starve the others. A handle stays ready until it is read from, accepted from or closed.
 *
 * It fails if the session is lost, and if tls_Cancel ends it. Several threads may wait, and may get
 * the same handle. */
int64_t tls_Wait(int32_t milliseconds);

/* Before the handshake only, for protocols that change to TLS later (STARTTLS): waits for plain
 * text and reads at most max_bytes, 1 to 16777216, into buf. Nothing is read ahead, and it may
 * give less than there is. Returns the number of bytes, or 0 when the peer has ended its
 * direction. tls_Handshake of a client fails (kind state) if the peer has sent plain text that
 * was not read. After the handshake it fails with kind state. tls_SetTimeout bounds it. */
int64_t tls_ReadPlain(int64_t handle, void *buf, size_t max_bytes);

/* Before the handshake only: sends len bytes of plain text, 0 to 16777216. Returns len when all
 * are sent, or -1. After the handshake it fails with kind state. */
int64_t tls_WritePlain(int64_t handle, const void *data, size_t len);

/* Frees the handle, also if it returns -1. Calls of other threads that wait on it end with an
 * error. It waits until what was written has left, at most the daemon's write timeout (30 s unless
 * it was started with another) for each 64 KiB. Then the daemon sends close_notify. Returns 0, or
 * -1 for an error in writing that no call has raised yet. */
int64_t tls_Close(int64_t handle);

/* 1 turns verification of the server's certificate off for this connection, 0 on again. Only
 * before its handshake, and for tests only. Returns 0. */
int64_t tls_SetInsecureSkipVerify(int64_t handle, int32_t on);

/* Bounds the waits of later calls on the handle, in milliseconds, 0 to 2147483647: each
 * tls_Handshake, each tls_Read and each 64 KiB of a tls_Write of a connection, each tls_Accept of
 * a context. With the handle 0 it bounds each tls_NewClient of the process. A call that meets its
 * bound fails, and its text says so. 0 milliseconds: the daemon's bounds, which are none for
 * tls_Read and tls_Accept unless it was started with others. Returns 0. */
int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds);

/* Sets an option of a connection, before its handshake (else kind state; watch at any time), or of
 * a context, for clients that come later. Returns 0. An unknown name and a value that the option
 * does not have fail with kind params, and the text lists what there is. "" brings the default of
 * alpn, ca and pins back.
 *
 * Of a client: alpn ("h2,http/1.1"), server-name (for SNI, and the name that the certificate must
 * have), ca (path of a PEM file), pins ("sha256:" and 64 hexadecimal digits of the public key's
 * hash), min-version ("1.2", "1.3"), session-resumption ("on", "off": every handshake is a full
 * one). Of every connection: eof ("strict", "lax": a cut is an end). Of a context: alpn,
 * min-version, client-ca (path of a PEM file), client-cert ("none", "request", "require"),
 * session-resumption ("on", "off"), failed-handshakes ("raise", "skip": tls_Accept goes on),
 * handshake ("accept", "later": tls_Accept gives a connection before its handshake, and
 * tls_Handshake does the server's side), reload ("off", "auto": certificates that are renewed on
 * disk are taken). Of both: watch ("0", "1": tls_Wait waits for it). */
int64_t tls_SetOption(int64_t handle, const char *name, const char *value);

/* Reads and checks a certificate chain and its private key from PEM files; if it fails (kind file,
 * denied), the old ones stay. On a connection, before its handshake, and with server_name "": what
 * a client shows to a server that asks. On a context, for handshakes that begin later: "" replaces
 * the context's own certificate; a name, or "*." and a name, is for clients that ask for it by
 * SNI. Nobody is dropped. Returns 0. */
int64_t tls_SetCertificate(int64_t handle, const char *server_name, const char *cert_file,
			   const char *key_file);

/* Loads a certificate chain and its private key from PEM files.
 * Returns a context handle. */
int64_t tls_NewServerContext(const char *cert_file, const char *key_file);

/* Listens on host, an address of this machine, and port, 0 to 65535; 0 takes any free port.
 * Returns the port. A context may listen in up to 64 places. Fails with kind connect if the
 * address cannot be had. */
int64_t tls_Listen(int64_t ctx, const char *host, int32_t port);

/* Waits for a client on host, an address of this machine, and port, 1 to 65535, and does the
 * handshake. With host "" and port 0 it takes a client from each place of tls_Listen, and fails
 * with kind state if there is none. Returns a connection handle. Listening goes on between calls,
 * until tls_CloseServerContext. Needs descriptors as tls_Handshake does. */
int64_t tls_Accept(int64_t ctx, const char *host, int32_t port);

/* Stops listening and frees the context. Waiting tls_Accepts end with an error; accepted
 * connections live on. Returns 0. */
int64_t tls_CloseServerContext(int64_t ctx);

/* Trusts the CA certificates in this PEM file, instead of the system's, for clients opened from
 * now on. "" brings the system's back. Returns 0. */
int64_t tls_SetCaBundle(const char *path);

/* The subject of the peer's certificate, "/CN=example.com"; "" if it has shown none. */
int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap);

/* One fact about a connection or a context, by its name; with "" all of them, as one JSON object.
 * What does not exist is "". Times are in Unix seconds, hashes in hexadecimal, yes is "1" and no
 * "0". Fails with kind params for an unknown name, and the text lists the known ones; with state
 * before the handshake, except for the addresses.
 *
 * Of a connection: version, cipher, alpn, group, resumed, server-name, peer-address,
 * local-address, subject, issuer, serial, san, not-before, not-after, sha256, key-sha256, pem,
 * chain, verified, channel-binding, unsent (bytes). Of a context: address and its options. */
int64_t tls_Info(int64_t handle, const char *name, char *buf, size_t cap);

/* "openssl", or "stub" if there is no daemon or it has no libssl. Never fails. */
int64_t tls_Backend(char *buf, size_t cap);

/* The negotiated version of a connection, "TLSv1.3"; with handle 0 the version of the library,
 * which is "" without a daemon or a library, and never fails. */
int64_t tls_Version(int64_t handle, char *buf, size_t cap);

/* Ends every call of this process that waits at this moment, whatever it waits for. Returns 0
 * and never fails.
 *
 * Any thread may call it, and a signal handler, also one that has interrupted a call of this
 * library. It takes no lock, allocates nothing and leaves errno as it was. In a forked child it
 * ends the child's calls only. Calls that begin after it are not affected.
 *
 * A call whose answer is on its way succeeds. Any other fails, and its text says "cancelled by the
 * caller"; but tls_Backend gives "stub" and tls_Version(0) gives "". A cancelled tls_Read has
 * taken no data. A cancelled tls_Write is described there. After a cancelled tls_Handshake the
 * connection can only be closed. A cancelled tls_Close frees the handle, but what was written may
 * be cut short, and then it returns -1. A private tlsd that was being started goes on starting,
 * for the next call.
 *
 * Calls end at once as a rule. But the daemon is told of calls that it has, and its answers are
 * waited for. If it does not answer within 5 s, the session is given up as lost. */
int64_t tls_Cancel(void);

/* The text of the calling thread's most recent error, at most 4095 bytes. If this thread has had
 * none, the most recent one of the process; "" if there was none. Success does not clear it. Never
 * fails. */
int64_t tls_LastError(char *buf, size_t cap);

/* The kind of the error of the calling thread's last call, at most 23 bytes; "" if that has
 * succeeded. Never fails. The kinds are: params (a parameter is wrong), handle (no such handle),
 * state (the handle does not allow the call now), backend (no tlsd, or no libssl), file, connect,
 * handshake, verify (the peer's certificate was not accepted), io (the connection broke), timeout,
 * cancelled, limit, denied (by the administrator), lost (the session is gone), internal.
 *
 * tls_LastError, tls_ErrorKind, tls_ErrorCode and tls_Cancel do not count as calls here. */
int64_t tls_ErrorKind(char *buf, size_t cap);

/* The code of the same error, a negative number as in JSON-RPC, such as -32009 for timeout; 0 if
 * that call has succeeded. Never fails. */
int64_t tls_ErrorCode(void);

#ifdef __cplusplus
}
#endif
#endif
