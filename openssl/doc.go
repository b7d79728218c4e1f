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
//   - No thread waits in C. Sockets are Go's and wait in the netpoller. A gate lets at most twice
//     GOMAXPROCS threads compute in C. So the process has only a few threads more, whatever the
//     number of connections.
//   - Every wait has a context that ends it. Close ends all waits of a connection.
//   - A Read that waits does not hold up a Write, and a Write does not hold up a Read.
//   - Each direction fails alone. After a failed send, Reads return the data that has arrived, and
//     then the peer's alert.
//   - A Write that waits ends when the connection fails, with the connection's error.
//   - An end without close_notify is the error ErrTruncated, and never io.EOF.
//   - OpenSSL's error queue is empty on every thread whenever no call is running.
//   - This package and OpenSSL never ask for a password: an encrypted key is an error.
//   - OpenSSL verifies certificates. The error of a failed verification has the reason, the depth,
//     the subject and the trust store.
//   - A client resumes TLS sessions only from the cache in its settings. The sessions of
//     connections with other settings are not used.
//   - A Conn or a Context that was closed or freed leaves nothing allocated, also if it had failed.
//   - Nothing is logged. No error contains payload, a key or a password.
//
// Reading and writing allocate nothing as long as they need not wait. If they wait, they allocate a
// little, whatever the size.
//
// # The socket and the SSL
//
// An SSL is OpenSSL's object for one connection. A stay in the library begins when a thread passes
// the gate, and ends when the thread leaves it (exclusive in call.go).
//
// The SSL reads the socket itself (SSL_set_rfd), and only inside RawConn.Read and RawConn.Write;
// io.go has the rules. It writes to memory, a BIO pair. Before the thread leaves the library, Go
// takes the bytes out of the pair, and sends them or keeps them (out.go). One write(2) sends up to
// 64 KiB of data. If the SSL wrote to the socket itself, it would make one write(2) for each
// record.
//
// SSL_write never has to wait for the socket. So the SSL never has a half-sent record. With such a
// record a KeyUpdate from the peer would end the connection. A failed send is no failure of the
// SSL, so reading goes on. The pair belongs to the thread and not to the connection, so an idle
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
//   - An error queue belongs to a thread. So make each call that can fail inside exclusive
//     (call.go).
//   - C's int is int32 here: the upper half of the register is garbage.
//   - C may use memory of Go only during one call, and this memory must be on the heap (op.buf,
//     cString).
//   - Many names of the manual are macros; the table in symbols.go has the functions that exist.
//   - A callback from C into Go is slow. Use one for handshakes and tickets, and not for each read
//     or write. purego never frees a callback, so a Library has one of each kind.
//   - The SSL remembers the number of the socket. After close(2) that number belongs to another
//     socket.
//   - Since 4.0 SSL_get_error does not look at the queue. So SSL_read and SSL_write must not be
//     called again after the end or a fatal error. Conn.readErr and Conn.writeErr prevent that.
//   - Since 3.0 the end of the stream without close_notify fails both directions of the SSL, unless
//     SSL_OP_IGNORE_UNEXPECTED_EOF is set. With this option the end looks like close_notify. Only
//     the BIO that the SSL reads from shows the difference.
//   - With SSL_MODE_AUTO_RETRY one SSL_read goes on as long as the peer sends messages without
//     data, and collects the answers in memory without a limit. Without this mode SSL_read may ask
//     for a wait although it has more in a buffer. Then errno is not EAGAIN.
package openssl
