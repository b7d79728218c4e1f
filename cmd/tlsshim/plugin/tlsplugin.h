/*
 * tlsplugin.h - the C interface of TlsPlugin.so
 *
 * The library forwards each call to the daemon tlsd, another process, which owns OpenSSL and every
 * TLS connection. Nothing that OpenSSL or a peer does can hurt the process that calls these
 * functions.
 *
 * Terms
 *
 *   - The host is the program that loads this library.
 *   - A context is a server's certificate, its key, and the addresses where the server listens.
 *   - A handle is the number of a connection or of a context. A handle is watched while its option
 *     "watch" is "1"; see tls_Wait.
 *   - A session is the library's connection to the daemon. A process has one session at a time, and
 *     each handle belongs to a session.
 *
 * Rules for all functions
 *
 *   - Threads: any thread may call any function, and any number of threads may wait at once.
 *     On one connection a Read and a Write do not wait for each other. Several Reads of one
 *     connection take turns, and so do several Writes.
 *   - Results: a function returns 0 or more, or -1 for an error. After an error, tls_LastError has
 *     the text and tls_ErrorKind the kind. Only tls_ErrorCode returns other negative numbers.
 *   - Handles are numbers from 1 to 2147483647. A number is not given out twice.
 *   - Strings are NUL-terminated UTF-8. Parameters are the caller's: the library keeps none of
 *     them after the call. Paths may be relative to the caller's working directory.
 *   - Functions with buf and cap work like snprintf. They write at most cap bytes, the NUL
 *     included, and return the full length of the text without the NUL. To ask for the length
 *     alone, pass NULL and 0.
 *   - Fork: the child may call all functions. It gets a session of its own, and does not know
 *     its parent's handles. It does not disturb the parent's connections.
 *   - The host: the library starts no threads, installs no signal handlers, and raises no
 *     signal. A call leaves errno as it was. pthread_cancel(3) does not end a thread in a call.
 *   - Descriptors: the library keeps one for the daemon, two for tls_Cancel, and one for each
 *     connection. It keeps one for each context that is watched, or for which tls_Descriptor was
 *     called. None of them is 0, 1 or 2, and all are close-on-exec. If the host closes the
 *     descriptor of the daemon, of a connection or of a context, the session is lost. If the host
 *     then opens a file under the same number, the library does not touch the file.
 *   - Loss: if the daemon goes away, or if the program changes its effective user, the session is
 *     lost. The waiting calls fail with kind lost, and so do later calls on the handles of this
 *     session. The next call that needs no handle opens a new session, for example tls_NewClient.
 *     The CA bundle and the timeout of tls_NewClient (tls_SetTimeout) hold in the new session, too.
 *     The library never repeats a call by itself.
 *
 * The library looks for the daemon at the socket $TLSD_SOCKET. Without $TLSD_SOCKET it looks at the
 * socket that /etc/tlsd/client.conf names. If client.conf names none, it looks at
 * $XDG_RUNTIME_DIR/tlsd.sock, /run/tlsd.sock and /run/tlsd/tlsd.sock. Without $XDG_RUNTIME_DIR it
 * looks last at /tmp/tlsd-UID/tlsd.sock. The library talks to a daemon only if root, the caller's
 * own user, or one of client.conf's trusted-users has made the daemon's socket.
 *
 * If no daemon answers, the library starts a private tlsd from $TLSD_EXE or $PATH. It starts none
 * in these cases:
 *
 *   - The system seems to have a tlsd for all users, and client.conf does not have autostart = yes.
 *     The library assumes such a tlsd if client.conf names a socket, or if $TLSD_SOCKET is one of
 *     the two paths /run/tlsd.sock and /run/tlsd/tlsd.sock. It also assumes such a tlsd if
 *     $TLSD_SOCKET is not set, and one of the two paths exists.
 *   - client.conf has autostart = no, or TLSD_AUTOSTART is 0.
 *   - The process's real and effective users or groups differ.
 *
 * A private tlsd ends when it is idle. It logs to the file $TLSD_LOG, if the variable is set. In a
 * program with more rights than its user (AT_SECURE, getauxval(3)) the library ignores the
 * environment.
 *
 * A private tlsd is no child of the host. The host gets no SIGCHLD and no zombie, and waitpid(-1)
 * does not find the private tlsd. The case is different if the host is process 1 of its namespace,
 * or a subreaper (prctl(2)):
 *
 *   - The host has one more child. The child is a copy of the host, made when the private tlsd
 *     started, and keeps the host's memory of that moment. It only waits for the end of tlsd.
 *   - After the end of tlsd, the child is a zombie until the library starts the next tlsd, or the
 *     host ends. The child has no exit signal, so wait(2) shows it with __WALL or __WCLONE only.
 *   - When process 1 of a namespace ends, the kernel ends tlsd, too. So if the host is process 1,
 *     nothing is sent after the end of the host, whatever tls_Write and tls_Close promise.
 */
#ifndef TLSPLUGIN_H
#define TLSPLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header. A program that is compiled with this header runs with this version of
 * TlsPlugin.so, and with each later version that has the same major number. */
#define TLSPLUGIN_VERSION_MAJOR 0
#define TLSPLUGIN_VERSION_MINOR 1
#define TLSPLUGIN_VERSION_PATCH 0
#define TLSPLUGIN_VERSION \
	(TLSPLUGIN_VERSION_MAJOR * 10000 + TLSPLUGIN_VERSION_MINOR * 100 + TLSPLUGIN_VERSION_PATCH)

#ifdef __cplusplus
extern "C" {
#endif

/* Opens a TCP connection. host is a name or an address, and port is 1 to 65535.
 * Returns a connection handle. TLS starts with tls_Handshake. */
int64_t tls_NewClient(const char *host, int32_t port);

/* Does the TLS handshake and verifies the server's certificate. Returns 0, also if the handshake
 * was done before. It needs two free descriptors for a moment, and keeps one of them. */
int64_t tls_Handshake(int64_t handle);

/* Writes len bytes, 0 to 16777216. Takes all of them and returns len, or fails.
 *
 * The bytes go into the buffer of a socket, and tlsd sends them from there. The buffer has room for
 * a few hundred kilobytes. tls_Write returns when all bytes are in the buffer, usually before they
 * have left this machine. While the buffer is full, the call waits. Bytes arrive in order. After
 * tls_Write has returned, the bytes are sent even if the process ends at once.
 *
 * tlsd may meet an error after tls_Write has returned. Then the next call on the handle fails with
 * this error, even if it is a tls_Read. After that, every tls_Write fails with this error, and
 * tls_Read gives the bytes that the peer has sent. There is one exception: if a tls_Read has
 * already failed because the connection broke, the host knows of the fault, and the next call need
 * not fail.
 *
 * If a tls_Write fails after some of its bytes were sent, every later tls_Write fails. In this case
 * tls_Close sends no close_notify, so that the peer learns that the data is not complete. */
int64_t tls_Write(int64_t handle, const void *data, size_t len);

/* With 1, each later tls_Write of this process returns only when tlsd has sent all its bytes. So if
 * tlsd cannot send them, this tls_Write fails, and not a later call. With 0, tls_Write works as
 * described above. The default is 0, unless the environment has TLSD_STRICT_WRITES=1. Returns 0. */
int64_t tls_SetStrictWrites(int32_t on);

/* Waits for data and reads at most max_bytes, 1 to 16777216, into buf.
 * Returns the number of bytes, at least 1; or 0 when the peer has ended its direction with
 * close_notify. A connection that was cut without close_notify is an error. */
int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes);

/* Sends all that was written, and then close_notify. tls_Read is still possible. Every later
 * tls_Write fails. Returns 0, also if tls_Shutdown was called before. */
int64_t tls_Shutdown(int64_t handle);

/* Returns a descriptor for poll(2), select(2) and event loops. Its number is 3 or higher.
 *
 * The descriptor of a connection is readable exactly when a tls_Read would not wait. A connection
 * has none before its handshake. The descriptor of a context is readable exactly while a client
 * waits for a tls_Accept, on any address of the context. The descriptor belongs to the library, and
 * lives until the handle is closed. Do not read, write or close it, and do not change its flags. */
int64_t tls_Descriptor(int64_t handle);

/* Waits for a ready handle, and returns it. Returns 0 if no handle is ready within the timeout.
 * With 0 milliseconds the call returns at once. A negative number means no timeout.
 *
 * tls_Wait looks at each handle whose option "watch" is "1" (tls_SetOption). A handle is ready if a
 * tls_Read or a tls_Accept on it would not wait. Data, the end of the peer's direction and an error
 * make a connection ready. A connection whose handshake has not begun is ready, too, because a
 * tls_Read on it fails at once. Ready handles take turns, so a busy handle does not starve the
 * others. A handle stays ready until the host reads from it, accepts from it or closes it.
 *
 * tls_Wait fails if the session is lost, or if tls_Cancel ends the wait. Several threads may wait,
 * and may get the same handle. */
int64_t tls_Wait(int32_t milliseconds);

/* For protocols that change to TLS later (STARTTLS): waits for plain text before the handshake, and
 * reads at most max_bytes, 1 to 16777216, into buf. It may read fewer bytes than have come. Returns
 * the number of bytes, or 0 when the peer has ended its direction. tls_SetTimeout sets its timeout.
 * After the handshake tls_ReadPlain fails with kind state. If the peer has sent plain text that was
 * not read, tls_Handshake of a client fails with kind state. */
int64_t tls_ReadPlain(int64_t handle, void *buf, size_t max_bytes);

/* Sends len bytes of plain text, 0 to 16777216, before the handshake. Returns len when all are
 * sent, or -1. After the handshake it fails with kind state. */
int64_t tls_WritePlain(int64_t handle, const void *data, size_t len);

/* Frees the handle, even if the call returns -1. Calls of other threads that wait on the handle end
 * with an error. tls_Close waits until all that was written has left. For each 64 KiB it waits at
 * most the daemon's write timeout (30 s by default). Then the daemon sends close_notify. Returns 0,
 * or -1 for an error of writing that no call has returned yet. */
int64_t tls_Close(int64_t handle);

/* With 1, turns the verification of the server's certificate off for this connection; with 0, on
 * again. Use it before the handshake, and for tests only. Returns 0. */
int64_t tls_SetInsecureSkipVerify(int64_t handle, int32_t on);

/* Sets the timeout of later calls on the handle, in milliseconds, 0 to 2147483647. On a connection
 * it is for each tls_Handshake, each tls_Read and each 64 KiB of a tls_Write. On a context it is
 * for each tls_Accept. With the handle 0 it is for each tls_NewClient of the process. A call that
 * reaches its timeout fails with kind timeout. 0 restores the daemon's own timeouts.
 * By default the daemon has none for tls_Read and tls_Accept. Returns 0. */
int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds);

/* Sets an option. An option of a connection must be set before its handshake; later the call fails
 * with kind state. An option of a context is for clients that come later. The option watch may be
 * set at any time. An unknown name or a bad value fails with kind params, and the error's text says
 * which names or values are good. For alpn, ca and pins, the value "" restores the default. Returns
 * 0.
 *
 * Options of a client: alpn is a list of protocols ("h2,http/1.1"). server-name is the name for
 * SNI, and the name that the certificate must have. ca is the path of a PEM file. pins is a list
 * of hashes with commas between them; one must be the hash of the server's public key. A hash is
 * "sha256:" and 64 hexadecimal digits. min-version is "1.2" or "1.3". session-resumption is "on" or
 * "off"; with "off" every handshake is a full one.
 *
 * Option of every connection: eof is "strict" or "lax"; with "lax" tls_Read also returns 0 if the
 * connection was cut without close_notify.
 *
 * Options of a context: alpn and min-version are as above. session-resumption is "on" or "off".
 * client-ca is the path of a PEM file. client-cert is "none", "request" or "require".
 * failed-handshakes is "raise" or "skip"; with "skip" tls_Accept waits for the next client if a
 * handshake fails. handshake is "accept" or "later"; with "later" tls_Accept returns a connection
 * before its handshake, and tls_Handshake does the server's side. reload is "off" or "auto"; with
 * "auto" later handshakes use certificates and files of client-ca that were renewed on disk.
 *
 * Option of connections and contexts: watch is "0" or "1"; with "1" tls_Wait waits for the
 * handle. */
int64_t tls_SetOption(int64_t handle, const char *name, const char *value);

/* Reads and checks a certificate chain and its private key from PEM files. If it fails (kind file
 * or denied), the old certificate stays. Returns 0.
 *
 * On a connection, before its handshake: a client shows the certificate to a server that asks for
 * one. server_name must be "".
 *
 * On a context: the certificate is for handshakes that begin later, and no connection is dropped.
 * If server_name is "", the certificate replaces the one of tls_NewServerContext. If server_name is
 * a name, or "*." and a name, the certificate is for clients that ask for the name by SNI. */
int64_t tls_SetCertificate(int64_t handle, const char *server_name, const char *cert_file,
			   const char *key_file);

/* Loads a certificate chain and its private key from PEM files.
 * Returns a context handle. */
int64_t tls_NewServerContext(const char *cert_file, const char *key_file);

/* Listens. host is an address of this machine, and port is 0 to 65535. Port 0 takes any free port.
 * Returns the port. A context may listen on up to 64 addresses. Fails with kind connect if tlsd
 * cannot listen on the address. */
int64_t tls_Listen(int64_t ctx, const char *host, int32_t port);

/* Waits for a client, and does the handshake. host is an address of this machine, and port is 1 to
 * 65535. With host "" and port 0 it takes clients from all addresses of tls_Listen, and fails
 * with kind state if there are none. The first tls_Accept for a host and a port begins to listen
 * there, and tlsd goes on listening until tls_CloseServerContext. Returns a connection handle.
 * tls_Accept needs the same descriptors as tls_Handshake. */
int64_t tls_Accept(int64_t ctx, const char *host, int32_t port);

/* Stops listening and frees the context. Waiting tls_Accepts end with an error; accepted
 * connections live on. Returns 0. */
int64_t tls_CloseServerContext(int64_t ctx);

/* The CA certificates of a PEM file become the trust store of clients that are opened afterwards.
 * "" restores the system's store. Returns 0. */
int64_t tls_SetCaBundle(const char *path);

/* The subject of the peer's certificate, "/CN=example.com"; "" if the peer has shown none. */
int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap);

/* Gives one fact about a connection or a context, by its name. With the name "" it gives all facts,
 * as one JSON object. A fact that does not apply is "", such as alpn if no protocol was agreed.
 * Times are Unix seconds. Hashes are hexadecimal. Yes is "1" and no is "0". An unknown name fails
 * with kind params, and the error's text lists the known names. Before the handshake only the
 * addresses are known; other facts fail with kind state.
 *
 * Facts of a connection: version, cipher, alpn, group, resumed, server-name, peer-address,
 * local-address, subject, issuer, serial, san, not-before, not-after, sha256, key-sha256, pem,
 * chain, verified, channel-binding, unsent (bytes). Facts of a context: address,
 * and each option of the context by the option's name. */
int64_t tls_Info(int64_t handle, const char *name, char *buf, size_t cap);

/* "openssl", or "stub" if there is no daemon or the daemon has no libssl. Never fails. */
int64_t tls_Backend(char *buf, size_t cap);

/* The negotiated version of a connection, such as "TLSv1.3". With handle 0 it is the version of
 * OpenSSL, or "" if there is no daemon or no OpenSSL. With handle 0 the call never fails. */
int64_t tls_Version(int64_t handle, char *buf, size_t cap);

/* Ends every call of this process that waits at this moment, whatever it waits for. Returns 0
 * and never fails.
 *
 * Any thread may call tls_Cancel. A signal handler may call it too, even one that has interrupted a
 * call of this library. tls_Cancel takes no lock, allocates nothing and leaves errno as it was. In
 * a forked child it ends the child's calls only. Calls that begin afterwards are not affected.
 *
 * A call whose answer is on its way succeeds. Any other call fails with kind cancelled, except
 * tls_Backend, which gives "stub", and tls_Version(0), which gives "". A cancelled tls_Read has
 * taken no data. A cancelled tls_Write may have sent a part of its bytes; see tls_Write. After a
 * cancelled tls_Handshake the connection can only be closed. A cancelled tls_Close frees the
 * handle, and returns -1 if not all written bytes were sent. If a cancelled call was starting a
 * private tlsd, the tlsd starts nevertheless, and serves the next call.
 *
 * As a rule, calls end at once. If the daemon has the call already, the library tells the daemon
 * that the call is cancelled, and waits for the answer to the call. If no answer comes within 5 s,
 * the session is lost. */
int64_t tls_Cancel(void);

/* The text of the calling thread's most recent error, at most 4095 bytes. If this thread has had no
 * error, it is the text of the process's most recent error. If the process has had none either, it
 * is "". A success does not clear the text. Never fails. */
int64_t tls_LastError(char *buf, size_t cap);

/* The kind of error with which the calling thread's last call has failed, at most 23 bytes; "" if
 * the call has succeeded. Never fails. The kinds are: params (a parameter is wrong), handle (no
 * such handle), state (the handle does not allow the call now), backend (no tlsd, or no libssl),
 * file, connect, handshake, verify (the peer's certificate was not accepted), io (the connection
 * broke), timeout, cancelled, limit, denied (by the administrator), lost (the session is gone),
 * internal.
 *
 * tls_LastError, tls_ErrorKind, tls_ErrorCode and tls_Cancel do not count as calls here. */
int64_t tls_ErrorKind(char *buf, size_t cap);

/* The code of the error whose kind tls_ErrorKind gives: a negative number as in JSON-RPC, such as
 * -32009 for timeout; 0 if the call has succeeded. Never fails. */
int64_t tls_ErrorCode(void);

#ifdef __cplusplus
}
#endif
#endif
