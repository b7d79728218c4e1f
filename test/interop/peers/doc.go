// Package peers tests our client and our server with programs that speak TLS and were not written
// here: OpenSSL's command line, Go's crypto/tls, GnuTLS, Python's ssl, Node's tls, and curl.
//
// TestPeers is a table: peers × roles × the parts of TLS that often go wrong. Each cell is a
// subtest. It sends some hundred KiB each way, and compares every byte. A relay between the two
// sides (internal/tap) sees the records on the wire, so a test need not believe what a side
// reports. What a peer cannot do is listed in the variable unable, with the reason. Such cells are
// skipped. A part of the cells also runs through the plugin.
//
// Other tests use programs that ask for a page. They test certificates of clients, virtual hosts,
// 1,000 renewals under load, and HTTP/2 with curl, nghttp and nghttpd. The tests with real servers
// are in test/interop/services.
//
// The tests run with the libssl of the machine. make libssl-matrix runs them with five versions,
// each against the peers of its own Debian release. README.md describes two suites that are run by
// hand.
package peers
