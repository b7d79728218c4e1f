package session

import (
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"time"
)

// What a session does that an administrator may want to read in the log. Nothing is logged here:
// the session's owner decides which of it becomes a line.

// An Observer is told of it. Its methods are called by the goroutines of calls, several at the same
// time, and must not wait.
type Observer interface {
	// Shaken tells of a handshake that has ended, in success or not.
	Shaken(Handshake)
	// Loaded tells of a certificate and a key that have been read and taken.
	Loaded(Certificate)
	// Reloaded tells that files of a context have changed, and whether they are used now: an
	// error is why the old ones stay. Without a key it is the file of client-ca.
	Reloaded(certFile, keyFile string, err error)
	// Over tells what the session has done. It is the last call.
	Over(Totals)
}

// A Handshake is one that has ended.
type Handshake struct {
	Server  bool   // this side was the server
	Peer    string // a client's: host and port as the caller gave them; a server's: the client's address
	Took    time.Duration
	Failure *Error // nil if it has succeeded
	Skipped bool   // nobody is told of the failure: see the option failed-handshakes

	t EngineConn
}

// Version is that of TLS, as tls.Version has it; "" without success. It may be called by Shaken
// only.
func (h Handshake) Version() string {
	if h.Failure != nil {
		return ""
	}
	return h.t.Version()
}

// Details asks what the handshake has agreed on. It costs a little, and may be called by Shaken
// only. Without success there are none.
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

// A Certificate describes files that have been taken.
type Certificate struct {
	CertFile, KeyFile string
	Serial            *big.Int // nil if the certificate is one that only OpenSSL can read
	NotAfter          time.Time
	KeyOpen           bool // the key can be read by every user of the machine
}

// Totals are what a session has done.
type Totals struct {
	Handles        int   // that were given out
	Received, Sent int64 // bytes of connections
}

// shaken tells the meter and the observer of a handshake.
func (s *Session) shaken(h Handshake, began time.Time, t EngineConn) {
	h.Took, h.t = time.Since(began), t
	if s.Meter != nil {
		s.Meter.Shaken(h)
	}
	if s.Observer != nil {
		s.Observer.Shaken(h)
	}
}

// loaded tells the observer of a certificate and the file of its key.
func (s *Session) loaded(from source) {
	if s.Observer != nil {
		s.Observer.Loaded(from.certificate())
	}
}

// reloaded tells the meter and the observer of files that have changed.
func (s *Session) reloaded(certFile, keyFile string, err error) {
	if s.meter.next != nil {
		s.meter.next.Reloaded(err == nil)
	}
	if s.Observer != nil {
		s.Observer.Reloaded(certFile, keyFile, err)
	}
}

// certificate describes what was read.
func (from source) certificate() Certificate {
	c := Certificate{CertFile: from.certFile, KeyFile: from.keyFile,
		KeyOpen: from.key.Mode().Perm()&0o004 != 0}
	if from.leaf != nil {
		c.Serial, c.NotAfter = from.leaf.SerialNumber, from.leaf.NotAfter
	}
	return c
}

// firstCertificate is that of a PEM text, or nil if this parser cannot read it.
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
