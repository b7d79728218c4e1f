package session

import (
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"time"
)

// A session has events that an administrator may want to read in the log. This package logs nothing
// itself. It reports the events to an Observer.

// An Observer gets the events. Several goroutines of the session may call its methods at the same
// time. The methods must not wait.
type Observer interface {
	// HandshakeDone reports a handshake that has ended, in success or failure.
	HandshakeDone(Handshake)
	// Loaded reports a certificate and a key that have been read and checked, and are used from
	// now on.
	Loaded(Certificate)
	// Reloaded reports that files of a context have changed. If err is nil, the new files are
	// in use. Otherwise err says why the old files stay in use. If keyFile is "", certFile is
	// the file of the option client-ca.
	Reloaded(certFile, keyFile string, err error)
	// Over reports what the session has done. No method is called after it.
	Over(Totals)
}

// A Handshake describes a handshake that has ended.
type Handshake struct {
	Server bool // tlsd was the server
	// for a client, host and port as the caller gave them; for a server, the client's address
	Peer    string
	Took    time.Duration
	Failure *Error // nil if it has succeeded
	Skipped bool   // no Accept returns the failure (see the option failed-handshakes)

	t EngineConn
}

// Version is the version of TLS, as in tls.Version. It is "" after a failure. Only an Observer's or
// a Meter's HandshakeDone may call it, because the connection may be freed later.
func (h Handshake) Version() string {
	if h.Failure != nil {
		return ""
	}
	return h.t.Version()
}

// Details returns what the handshake has agreed on. After a failure all results are empty. As with
// Version, only a HandshakeDone may call it.
func (h Handshake) Details() (version, cipher, subject, serial string, resumed bool) {
	if h.Failure != nil {
		return "", "", "", "", false
	}
	i, err := h.t.Info()
	if err != nil {
		return h.t.Version(), "", h.t.PeerSubject(), "", false
	}
	if len(i.Chain) > 0 {
		if leaf, err := x509.ParseCertificate(i.Chain[0]); err == nil {
			serial = leaf.SerialNumber.Text(16)
		}
	}
	return i.Version, i.Cipher, h.t.PeerSubject(), serial, i.Resumed
}

// A Certificate describes the files of a certificate and its key.
type Certificate struct {
	CertFile, KeyFile string
	Serial            *big.Int // nil if only OpenSSL can read the certificate
	NotAfter          time.Time
	KeyOpen           bool // the mode of the key file lets every user read it
}

// Totals count what a session has done.
type Totals struct {
	Handles        int   // how many handles were given out, also to calls that failed
	Received, Sent int64 // bytes of connections
}

// reportHandshake reports a handshake to the meter and the observer.
func (s *Session) reportHandshake(h Handshake, began time.Time, t EngineConn) {
	h.Took, h.t = time.Since(began), t
	if s.Meter != nil {
		s.Meter.HandshakeDone(h)
	}
	if s.Observer != nil {
		s.Observer.HandshakeDone(h)
	}
}

// reportCertificate reports a certificate and its key to the observer.
func (s *Session) reportCertificate(from source) {
	if s.Observer != nil {
		s.Observer.Loaded(from.certificate())
	}
}

// reportReload reports to the meter and the observer that files have changed.
func (s *Session) reportReload(certFile, keyFile string, err error) {
	if s.meter.next != nil {
		s.meter.next.Reloaded(err == nil)
	}
	if s.Observer != nil {
		s.Observer.Reloaded(certFile, keyFile, err)
	}
}

// certificate describes the source's files.
func (from source) certificate() Certificate {
	c := Certificate{CertFile: from.certFile, KeyFile: from.keyFile,
		KeyOpen: from.key.Mode().Perm()&0o004 != 0}
	if from.leaf != nil {
		c.Serial, c.NotAfter = from.leaf.SerialNumber, from.leaf.NotAfter
	}
	return c
}

// firstCertificate returns the first certificate of a PEM text. It returns nil if there is none, or
// if package x509 cannot read it.
func firstCertificate(text []byte) *x509.Certificate {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil
			}
			return leaf
		}
	}
	return nil
}
