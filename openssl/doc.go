// Package openssl drives TLS connections with OpenSSL's libssl. It loads libssl when the program
// runs, without cgo. It is the only package that knows a symbol of libssl.
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
//   - OpenSSL 1.1.1, 3.x and 4.x are supported. Where possible, this package tests what a library
//     can do, and does not look at its version number. It refuses a major version that nobody has
//     tested.
//   - No thread waits in C. Goroutines wait for sockets in Go's netpoller. A gate lets at most
//     twice GOMAXPROCS threads into C at a time. So the number of threads does not grow with the
//     number of connections.
//   - Every wait has a context that ends it. Close ends all waits of a connection.
//   - A Read that waits does not hold up a Write, and a Write does not hold up a Read.
//   - A failed send ends only the outgoing direction. Reads still return the data that has arrived,
//     and then the peer's alert.
//   - If the connection fails, for example by a broken record, both directions end. A waiting Write
//     ends with the connection's error.
//   - An end without close_notify is the error ErrTruncated, and never io.EOF.
//   - OpenSSL's error queue is empty on every thread whenever no call is running.
//   - This package and OpenSSL never ask for a password: an encrypted key is an error.
//   - OpenSSL verifies certificates. The error of a failed verification has the reason, the depth,
//     the subject and the trust store.
//   - A client resumes TLS sessions only from the cache in its settings. It does not use the TLS
//     sessions of connections whose settings differ from its own.
//   - Close and Free release all memory of a Conn and a Context, also after a failure.
//   - Nothing is logged. No error contains payload, a key or a password.
//
// Reads and Writes that need not wait allocate nothing. A Read or Write that waits allocates a
// little memory, however much data it moves.
//
// # The socket and the SSL
//
// An SSL is OpenSSL's object for one connection. A stay in the library begins when a thread passes
// the gate, and ends when the thread is back in Go (exclusive in call.go).
//
// The SSL reads the socket itself (SSL_set_rfd), and only inside RawConn.Read and RawConn.Write;
// io.go has the rules. The SSL writes to memory, a BIO pair. Before the thread leaves the library,
// Go takes the bytes out of the pair, and sends them or keeps them (out.go). One write(2) sends up
// to 64 KiB of data. If the SSL wrote to the socket itself, it would make one write(2) for each
// record.
//
// SSL_write never has to wait for the socket. So the SSL never has a half-sent record. (While
// OpenSSL has one, a KeyUpdate from the peer ends the connection.) A failed send is no failure of
// the SSL, so reading goes on. The pair belongs to the thread and not to the connection, so an idle
// connection has no memory for outgoing bytes.
//
// This command measures the cost of reading and writing:
//
//	go test -run '^$' -bench 'Read|Write|Echo' ./openssl
//
// It prints the CPU time of both ends together. For comparison it prints the same for crypto/tls.
//
// # Pitfalls, for changes of this package
//
//   - An error queue belongs to a thread. So make each call that can fail inside the function
//     exclusive (call.go).
//   - If a C function returns an int, the upper half of the register is garbage. So convert the
//     result to int32.
//   - C may use memory of Go only during one call, and this memory must be on the heap (op.buf,
//     cString).
//   - Many names of the manual are macros; the table in symbols.go has the functions that exist.
//   - A callback from C into Go is slow. So only handshakes and tickets have callbacks; reading and
//     writing have none. The package purego never frees a callback, so all connections of a Library
//     share its callbacks.
//   - The SSL has the socket's descriptor number. After close(2) the number may belong to another
//     socket. So free the SSL before the socket is closed.
//   - SSL_read and SSL_write must not be called again after the end of the stream or a fatal error
//     (SSL_get_error(3)). Conn.readErr and Conn.writeErr prevent that.
//   - Since OpenSSL 3.0, a stream that ends without close_notify makes both directions of the SSL
//     fail. SSL_OP_IGNORE_UNEXPECTED_EOF prevents that. But with this option such an end looks like
//     close_notify. Only the BIO that the SSL reads from shows the difference.
//   - With SSL_MODE_AUTO_RETRY one SSL_read goes on as long as the peer sends messages without
//     data, and collects the answers in memory without a limit. So this mode is off. Then SSL_read
//     may return SSL_ERROR_WANT_READ although the SSL has unread data in its own buffer. errno is
//     not EAGAIN in this case, and the call must be repeated at once.
//   - In the middle of a message of the handshake layer, SSL_write and SSL_do_handshake read the
//     socket. They may read data that a Read waits for, so they wake the Read (wakeReader in
//     io.go). A Read may have read the rest of the message that a Write wants to read. Then the
//     Write need not wait, but only the Read knows that. So the Read lets the Write go first
//     (lockReading).
package openssl
