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
//   - A connection that was cut is never taken for one that has ended: ErrTruncated is not io.EOF.
//   - OpenSSL's error queue is empty whenever no call is under way, on every thread.
//   - Nobody is ever asked for a password: an encrypted key is an error.
//   - Verification is OpenSSL's; why it failed is told: reason, depth, subject, trust store.
//   - What has failed or was closed leaves nothing allocated.
//   - Nothing is logged. No error contains payload, a key or a password.
//
// Reading and writing allocate nothing as long as they need not wait, and a little, whatever the size, if they do.
//
// # The socket and the SSL
//
// The SSL reads and writes the socket itself (SSL_set_fd) and does so only inside RawConn.Read and
// RawConn.Write; io.go has the rules. The other way would be a pair of memory BIOs between the SSL
// and a net.Conn. It is simpler to wait with, but each byte is copied once more in each direction, each connection needs
// buffers of its own, the SSL never notices that the network is full, so that its output
// must be bounded by hand, and what it wants to say besides data (alerts, key updates) must be
// looked for after each call. With the socket, TCP's own flow control does that.
// What this costs in comparison can be measured with
//
//	go test -run '^$' -bench 'Read|Write|Echo' ./openssl
//
// which runs the same transfer with crypto/tls in the place of this package. In CPU time of both ends
// together, bulk data (16 KiB and more) takes 17 to 23 % more than with crypto/tls at both ends; for messages of 64 bytes a
// Read takes about as much, and a Write up to twice as much, most of it in the system call that wakes the peer.
//
// # Pitfalls, for who changes this package
//
//   - An error queue belongs to a thread: make no call that can fail outside of exclusive (call.go).
//   - C's int is int32 here: the upper half of the register is garbage.
//   - Memory of Go's is given to C for the time of one call only, and must be on the heap (aim in io.go, cString).
//   - Many names of the manual are macros; table in symbols.go has what exists.
//   - A C function that calls back into Go more than once a handshake would be slow, and callbacks are never
//     freed: there is one a Library.
//   - The SSL has its own idea of the socket's number. After close(2) that number is another's.
//   - Since 4.0 SSL_get_error does not look at the queue, and after the end or a fatal error SSL_read and
//     SSL_write must not be called again: Conn remembers.
package openssl
