package peers

import "crypto/tls"

// A role says whether a peer is the client or the server of a connection.
type role string

const (
	asClient role = "client"
	asServer role = "server"
	either   role = ""
)

// The variable unable lists the cells that a peer cannot pass, with the reasons. All other cells
// must pass.
var unable = []struct {
	peer string // "" is all
	role role   // the peer's
	what string // the name of the case; "" is all
	v    uint16 // 0: both
	why  string
}{
	{"curl", asServer, "", 0, "curl is no server"},
	{"curl", asClient, oneByte, 0, "curl writes all its data at once"},
	{"curl", asClient, halfClosed, 0, "curl closes both directions at once"},
	{"curl", asClient, halfClosing, 0, "curl stops sending when the peer has ended"},
	{"curl", asClient, keyUpdate, 0, "curl has no command for it"},
	{"curl", asClient, renegotiated, 0, "curl has no command for it"},

	{"", asClient, ticketsLate, tls.VersionTLS12, "in TLS 1.2 the ticket is a part of the " +
		"handshake"},
	{"", asServer, ticketsLate, tls.VersionTLS12, "in TLS 1.2 the ticket is a part of the " +
		"handshake"},
	{"crypto/tls", asServer, ticketsLate, 0, "crypto/tls sends its tickets before the client " +
		"has ended the handshake"},
	{"", asServer, resumed, 0, "each server here takes one connection; see test/conformance"},

	{"", either, keyUpdate, tls.VersionTLS12, "TLS 1.2 has no KeyUpdate"},
	{"crypto/tls", either, keyUpdate, 0, "crypto/tls has no call for it; package openssl " +
		"tests a forged KeyUpdate"},
	{"Python", either, keyUpdate, 0, "Python's ssl has no call for it"},
	{"Node", either, keyUpdate, 0, "Node's tls has no call for it"},
	{"GnuTLS", asServer, keyUpdate, 0, "gnutls-serv has no command for it"},

	{"", either, retried, tls.VersionTLS12, "TLS 1.2 has no HelloRetryRequest"},

	{"GnuTLS", asServer, oneByte, 0, "gnutls-serv answers line by line"},
	{"openssl", asServer, halfClosed, 0, "s_server leaves when its input ends"},
	{"openssl", asClient, halfClosed, 0, "s_client leaves when its input ends"},
	{"openssl", asClient, largestPeers, 0, "s_client writes 8 KiB at most"},
	{"GnuTLS", asClient, largestPeers, 0, "gnutls-cli writes 4 KiB at most"},
	{"GnuTLS", asServer, largestPeers, 0, "gnutls-serv answers line by line"},

	{"GnuTLS", asServer, halfClosed, 0, "gnutls-serv only echoes"},
	{"openssl", asServer, halfClosing, 0, "s_server leaves when the peer has ended"},
	{"openssl", asClient, halfClosing, 0, "s_client leaves when the peer has ended"},
	{"GnuTLS", asClient, halfClosing, 0, "gnutls-cli leaves when the peer has ended"},

	{"", either, renegotiated, tls.VersionTLS13, "TLS 1.3 has no renegotiation"},
	{"crypto/tls", either, renegotiated, 0, "crypto/tls cannot begin one"},
	{"Python", either, renegotiated, 0, "Python's ssl cannot begin one"},
	{"Node", asServer, renegotiated, 0, "a server of Node's tls cannot begin one"},

	{"", asClient, certOptional, 0, "see TestCertificatesOfForeignClients"},
	{"", asClient, certRequired, 0, "see TestCertificatesOfForeignClients"},
}

// cannot says why a peer in a role cannot do a case in a version, or returns "".
func cannot(p peer, r role, what string, v uint16) string {
	for _, u := range unable {
		if (u.peer == "" || u.peer == p.String()) && (u.role == either || u.role == r) &&
			(u.what == "" || u.what == what) && (u.v == 0 || u.v == v) {
			return u.why
		}
	}
	return ""
}
