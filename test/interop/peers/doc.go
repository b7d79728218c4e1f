// Package peers tests our client and our server with programs that speak TLS and were not written
// here: OpenSSL's command line, Go's crypto/tls, GnuTLS, Python's ssl, Node's tls, and curl.
//
// TestPeers is a table: peers × roles × the parts of TLS that often go wrong. Each cell is a
// subtest. It sends some hundred KiB each way, and compares every byte. A relay between the two
// (internal/tap) shows on the wire what the cell is about, so neither side is believed. If a peer
// cannot do a cell, the table unable has the reason, and the cell is skipped. A part of the table
// also runs through the plugin.
//
// Other tests show what a handshake agrees on, with programs that ask for a page: certificates of
// clients, virtual hosts, 1,000 renewals under load, and HTTP/2 with curl, nghttp and nghttpd. The
// tests with real servers are in test/interop/services.
//
// The tests run with the libssl of the machine. make libssl-matrix runs them with five versions,
// each against the peers of its own Debian release. README.md describes suites that one runs by
// hand.
package peers
