// Package peers holds our client and our server against programs that speak TLS and were not
// written here: OpenSSL's command line, Go's crypto/tls, GnuTLS, Python's ssl, Node's tls, and
// curl.
//
// TestPeers is a table: peers × roles × what TLS has that goes wrong. Each cell is a subtest, with
// data of some hundred KiB in both directions, every byte of which is compared. What a cell is
// about is looked for on the wire, by a relay between the two (internal/tap), and not believed of
// either side. A cell that a peer cannot do stands with its reason in the table unable, and is
// skipped: it never counts as passed. Through the plugin a part of the table is run again.
//
// What a handshake agrees on has tests of its own, with programs that come for a page: certificates
// of clients, virtual hosts, 1,000 renewals under load, and HTTP/2 with curl, nghttp and nghttpd.
// Servers that people run are in test/interop/services.
//
// The tests run with the libssl of the machine, make libssl-matrix runs them with five versions,
// each against the peers of its own Debian release. README.md tells of suites that are to be run by
// hand.
package peers
