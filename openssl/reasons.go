package openssl

import (
	"fmt"
	"strings"
	"syscall"
)

// This file turns the reasons that OpenSSL gives into texts for people.

// handshakeFailure returns the error of a failed handshake. The caller holds c.mu.
func (c *Conn) handshakeFailure(o *op, q queue) error {
	if c.verdict != nil && (c.verify || !c.client) && c.verdict.failed &&
		q.has(reasonCertVerifyFailed) {
		v := c.verdict
		return c.lib.verifyError(v.code, v.depth, v.subject, c.store, c.peer.String())
	}
	// The system reports a reset only once. If a send has failed, the send has got this report,
	// and the read finds only an end.
	if c.sendErrno != 0 && o.cut(q) {
		o.errno, q = c.sendErrno, nil
	}
	e := &HandshakeError{Queue: q.strings(), Version: q.has(reasonUnsupportedProtocol,
		reasonAlert+alertProtocolVersion)}
	switch {
	case q.has(reasonWrongVersionNumber, reasonHTTPRequest, reasonHTTPSProxyRequest,
		reasonPacketTooLong):
		e.Reason = "the peer does not speak TLS: it may be plain HTTP, or another " +
			"protocol that begins without TLS"
	case o.errno == syscall.ECONNRESET, o.errno == syscall.EPIPE:
		e.Reason = "the peer reset the connection during the handshake"
		e.Err = o.errno
	case o.errno != 0:
		e.Reason = o.errno.Error()
		e.Err = o.errno
	case o.cut(q), o.code == sslErrorZeroReturn:
		e.Reason = "the peer closed the connection during the handshake"
		e.Err = ErrTruncated
	case q.has(reasonUnsupportedProtocol) && c.tls13:
		e.Reason = "the peer does not speak TLS 1.3"
	case q.has(reasonUnsupportedProtocol):
		e.Reason = "the peer does not speak TLS 1.2 or newer"
	case q.has(reasonNoSharedCipher):
		e.Reason = "no cipher suite in common with the peer"
	default:
		e.Reason = q.explain(fmt.Sprintf("OpenSSL gives no reason (SSL_get_error %d)",
			o.code))
	}
	e.Reason += c.uncertified(q)
	return e
}

// If the peer asked for a renegotiation before an error, the error's text ends with these words.
const renegotiation = "; the peer had asked for a renegotiation, which tlsd refuses"

// If the server has asked for a certificate and the client has none, uncertified returns a text
// that says so, for the end of an error's text. Otherwise it returns "". In TLS 1.2 OpenSSL
// remembers the request of the server. In TLS 1.3 the peer's alert shows that there was a request.
// The caller holds c.mu.
func (c *Conn) uncertified(q queue) string {
	if !c.client || c.identity || c.ssl == 0 {
		return ""
	}
	asked := q.has(reasonAlert + alertCertificateRequired)
	if !asked {
		c.lib.exclusive(func() {
			asked = int64(call(c.lib.sym.sslCtrl, c.ssl, ctrlGetClientCertTypes, 0,
				0)) > 0
		})
	}
	if !asked {
		return ""
	}
	return "; the server asked for a client certificate, and none is set (tls.SetCertificate)"
}

// explain returns the queue as one phrase. If the queue has an alert of the peer, the phrase names
// only the alert. If the queue is empty, explain returns the text ifEmpty.
func (q queue) explain(ifEmpty string) string {
	for _, e := range q {
		if n := e.reason - reasonAlert; e.lib == libSSL && 0 <= n && n < 256 {
			if name := alerts[n]; name != "" {
				return fmt.Sprintf("the peer sent the alert %s (%d)", name, n)
			}
			return fmt.Sprintf("the peer sent the alert %d", n)
		}
	}
	if len(q) == 0 {
		return ifEmpty
	}
	if q.has(reasonBadRecordMAC) {
		// In TLS 1.2, OpenSSL since 3.0 queues a second error beside this one. The second
		// error says nothing more.
		return "decryption failed or bad record mac"
	}
	var parts []string
	for _, e := range q {
		if len(parts) == 0 || parts[len(parts)-1] != e.short {
			parts = append(parts, e.short)
		}
	}
	return strings.Join(parts, ", ")
}

const (
	alertProtocolVersion     = 70
	alertCertificateRequired = 116
)

// alerts are the names of RFC 8446 section 6 and RFC 5246 section 7.2.
var alerts = map[int]string{
	0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
	40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate",
	44: "certificate_revoked",
	45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter",
	48: "unknown_ca",
	49: "access_denied", 50: "decode_error", 51: "decrypt_error", 70: "protocol_version",
	71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback",
	90:  "user_canceled",
	100: "no_renegotiation", 109: "missing_extension", 110: "unsupported_extension",
	112: "unrecognized_name",
	113: "bad_certificate_status_response", 115: "unknown_psk_identity",
	116: "certificate_required",
	120: "no_application_protocol",
}
