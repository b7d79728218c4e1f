package openssl

import (
	"crypto/sha256"
)

// ClientSettings are what a client's connection wants of its handshake, besides the name of the server.
type ClientSettings struct {
	ALPN     []string            // offered, in this order
	Pins     [][sha256.Size]byte // one of them must be the hash of the server's key, in addition to verification; nil: any
	TLS13    bool                // nothing older
	Identity *Identity           // shown if the server asks for a certificate; nil: none

	// Sessions, if not nil, is where a session to be resumed is taken from, and where those go that the server offers. Only
	// connections with the same settings, name and trust share them, and the same Place: the server's address, as it is known to
	// the caller.
	Sessions *SessionCache
	Place    string
}

// Configure makes the settings hold for the handshake. It fails with ErrServerSide, ErrHandshakeDone, net.ErrClosed, or a
// *PEMError. It is called at most once.
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
	ok := true
	q := c.lib.exclusive(func() {
		ok = c.lib.offerALPN(c.ssl, list)
		if s.TLS13 {
			ok = ok && int64(call(c.lib.sym.sslCtrl, c.ssl, ctrlSetMinProto, tls13, 0)) == 1
		}
	})
	if !ok {
		return internalError("SSL_set_alpn_protos", q)
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

// checkPins says why the server's key is none of the pins, if there are such. The caller holds c.mu.
func (c *Conn) checkPins() error {
	if len(c.pins) == 0 {
		return nil
	}
	i, ok := Info{}, false
	q := c.lib.exclusive(func() { ok = c.shown(&i) })
	switch {
	case !ok:
		return &HandshakeError{Reason: "OpenSSL cannot encode the server's certificate: " + q.reason(), Queue: q.strings()}
	case len(i.Chain) == 0:
		return &VerifyError{Code: -1, Reason: "the server has shown no certificate, and its key is pinned", Store: c.store}
	}
	if err := i.checkPins(c.pins); err != nil {
		return &VerifyError{Code: -1, Reason: err.Error(), Store: c.store}
	}
	return nil
}
