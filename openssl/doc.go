// Package openssl drives TLS connections with OpenSSL's libssl, which it loads when the
// program runs, without cgo. It is the only package that knows a symbol of libssl.
//
//	lib, err := openssl.Load("")                  // a *LoadError says what was tried
//	ctx, err := lib.NewClientContext(nil)         // nil: trust what the system trusts
//	conn, err := ctx.NewClient(tcp, "example.com") // conn owns tcp
//	err = conn.Handshake(c)                        // a *VerifyError, a *HandshakeError
//	n, err := conn.Read(c, buf)                    // io.EOF only after close_notify
//	conn.Close()
//	ctx.Free()
//
// # Promises
//
//   - OpenSSL 1.1.1, 3.x and 4.x are supported, and told apart by what they can do, not by their number, where
//     that is possible. A major version that nobody has tested is refused.
//   - No thread waits in C. Sockets are Go's and wait in the netpoller; a call into C that computes passes a gate, so that
//     the number of threads stays near twice GOMAXPROCS, whatever the number of connections.
//   - Every wait has a context that ends it. Close ends all of a connection's.
//   - A Read that waits does not hold up a Write, nor the other way round.
//   - Each direction fails alone. After a send has failed, Reads give what has arrived, and then the peer's alert.
//   - A Write that waits ends when the connection fails, with the same error.
//   - A connection that was cut is never taken for one that has ended: ErrTruncated is not io.EOF.
//   - OpenSSL's error queue is empty whenever no call is under way, on every thread.
//   - Nobody is ever asked for a password: an encrypted key is an error.
//   - Verification is OpenSSL's; why it failed is told: reason, depth, subject, trust store.
//   - A client resumes TLS sessions only from a cache that it is given, and only those of connections with the same settings.
//   - What has failed or was closed leaves nothing allocated.
//   - Nothing is logged. No error contains payload, a key or a password.
//
// Reading and writing allocate nothing as long as they need not wait, and a little, whatever the size, if they do.
//
// # The socket and the SSL
//
// The SSL reads the socket itself (SSL_set_rfd), and does so only inside RawConn.Read and RawConn.Write; io.go has the
// rules. It writes to a memory BIO. What that holds is taken out before the thread leaves the library, and Go sends
// it: up to 64 KiB of data with one write(2), where an SSL that writes to the socket makes one for each record.
// SSL_write never wants to wait, so no record is half sent inside the SSL, and the answer to a KeyUpdate is in nobody's way. A send that fails
// is no failure of the SSL, which goes on reading. The BIO belongs to the thread and not to the connection,
// so an idle connection has no memory for what goes out.
//
// What this costs can be measured with
//
//	go test -run '^$' -bench 'Read|Write|Echo' ./openssl
//
// which tells the CPU time of both ends together, beside the same with crypto/tls in the place of this package.
//
// # Pitfalls, for who changes this package
//
//   - An error queue belongs to a thread: make no call that can fail outside of exclusive (call.go).
//   - C's int is int32 here: the upper half of the register is garbage.
//   - Memory of Go's is given to C for the time of one call only, and must be on the heap (op.buf, cString).
//   - Many names of the manual are macros; table in symbols.go has what exists.
//   - A C function that calls back into Go more than once a handshake, or a ticket, would be slow, and callbacks are never
//     freed: there is one a Library.
//   - The SSL has its own idea of the socket's number. After close(2) that number is another's.
//   - Since 4.0 SSL_get_error does not look at the queue, and after the end or a fatal error SSL_read and
//     SSL_write must not be called again: Conn remembers.
//   - The end of the stream without close_notify would fail both directions of the SSL since 3.0. With
//     SSL_OP_IGNORE_UNEXPECTED_EOF it looks like close_notify: only the BIO that was read from knows better.
//   - With SSL_MODE_AUTO_RETRY one SSL_read goes on for as long as the peer sends messages that are no data, and answers
//     them in memory without a bound. Without it SSL_read wants to wait although it has more in a buffer: errno tells.
package openssl
