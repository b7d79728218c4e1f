package openssl

import (
	"crypto/sha256"
)

// ClientSettings are a client's settings for its handshake, besides the name of the server.
type ClientSettings struct {
	ALPN []string // offered, in this order
	// Pins are hashes of keys (Info.KeySHA256). The hash of the server's key must be one of
	// them. The certificate is verified too. If Pins is nil, the server may have any key.
	Pins     [][sha256.Size]byte
	TLS13    bool      // refuse older versions
	Identity *Identity // shown if the server asks for a certificate; nil: none

	// Sessions, if not nil, is a cache. The connection resumes a TLS session from the cache,
	// and adds the sessions that the server gives. Only connections with the same settings,
	// server name, trust store and Place share sessions.
	Sessions *SessionCache
	Place    string // the server's address as text; this package only compares it
}

// Configure sets the settings for the handshake. It fails with ErrServerSide, ErrHandshakeDone,
// net.ErrClosed, or a *PEMError. Another error says that a name in ALPN is not valid, or that
// OpenSSL has refused a setting. Call Configure at most once.
func (c *Conn) Configure(s ClientSettings) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	if !c.client {
		return ErrServerSide
	}
	list, err := encodeALPN(s.ALPN)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun {
		return ErrHandshakeDone
	}
	c.pins = s.Pins
	refused := ""
	q := c.lib.exclusive(func() {
		if !c.lib.offerALPN(c.ssl, list) {
			refused = "SSL_set_alpn_protos"
		} else if s.TLS13 && int64(call(c.lib.sym.sslCtrl, c.ssl, ctrlSetMinProto,
			tls13, 0)) != 1 {
			refused = "SSL_set_min_proto_version"
		}
	})
	if refused != "" {
		return internalError(refused, q)
	}
	c.tls13 = c.tls13 || s.TLS13
	if s.Identity != nil {
		if err := c.lib.useIdentity(c.ssl, *s.Identity); err != nil {
			return err
		}
		c.identity = true
	}
	if s.Sessions != nil {
		c.resume = &resumption{cache: s.Sessions, wishes: s}
	}
	return nil
}

// checkPins returns an error if the hash of the server's key is none of the pins. Without pins it
// returns nil. The caller holds c.mu.
func (c *Conn) checkPins() error {
	if len(c.pins) == 0 {
		return nil
	}
	i, ok := Info{}, false
	q := c.lib.exclusive(func() { ok = c.shown(&i) })
	switch {
	case !ok:
		return &HandshakeError{Reason: "OpenSSL cannot encode the server's certificate: " +
			q.reason(), Queue: q.strings()}
	case len(i.Chain) == 0:
		return &VerifyError{Code: -1, Reason: "the server has shown no certificate, and " +
			"its key is pinned", Store: c.store}
	}
	if err := i.checkPins(c.pins); err != nil {
		return &VerifyError{Code: -1, Reason: err.Error(), Store: c.store}
	}
	return nil
}
