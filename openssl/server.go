package openssl

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unsafe"
)

// This file has the settings of server contexts. An SSL_CTX must not change after its first
// connection, so new settings need a new Context. Connections of the old Context live on.

// ClientAuth says whether a server asks its clients for a certificate.
type ClientAuth int

const (
	ClientAuthNone ClientAuth = iota
	// The server asks, and accepts a client without a certificate. A certificate that does not
	// verify ends the handshake.
	ClientAuthRequest
	ClientAuthRequire
)

// An Identity is a certificate chain and its private key, both PEM.
type Identity struct {
	Name      string // for errors: the files' paths
	Cert, Key []byte
}

// ServerConfig has the settings of a server context.
type ServerConfig struct {
	Default Identity // for clients that ask for no name, or for a name that is not in Hosts
	// Hosts has further identities. Its keys are the names for which clients ask with SNI: DNS
	// names in lower case. "*." before a name stands for exactly one label.
	Hosts map[string]Identity
	ALPN  []string // application protocols, in the server's order of preference

	ClientAuth ClientAuth
	// ClientCAs has the CAs that verify client certificates, in PEM. It may be empty only if
	// ClientAuth is ClientAuthNone.
	ClientCAs []byte
	CAName    string // for errors: the path of ClientCAs

	NoResumption bool
}

// serverSettings has what the callbacks of a server context need. It does not change. The callbacks
// find it in Library.servers by its number. The Context and each of its connections have a
// reference (hold, release), because a handshake may outlast the Context.
type serverSettings struct {
	lib    *Library
	number uintptr
	alpn   []string
	hosts  map[string]uintptr // SSL_CTX by name

	holders atomic.Int32
}

func (s *serverSettings) hold() *serverSettings {
	s.holders.Add(1)
	return s
}

// release drops a reference. After the last one it frees the settings.
func (s *serverSettings) release() {
	if s.holders.Add(-1) > 0 {
		return
	}
	s.lib.servers.Delete(s.number)
	for _, ctx := range s.hosts {
		s.lib.freeCtx(ctx)
	}
}

// NewServer makes a context for servers. The error is usually a *PEMError.
func (l *Library) NewServer(cfg ServerConfig) (*Context, error) {
	if _, err := encodeALPN(cfg.ALPN); err != nil {
		return nil, err
	}
	if cfg.ClientAuth != ClientAuthNone && len(cfg.ClientCAs) == 0 {
		return nil, errors.New("client certificates are asked for, and there is no CA to " +
			"verify them against")
	}
	set := &serverSettings{lib: l, number: uintptr(l.lastServer.Add(1)), alpn: cfg.ALPN,
		hosts: map[string]uintptr{}}
	l.servers.Store(set.number, set)
	c := &Context{lib: l, server: true, clientAuth: cfg.ClientAuth, store: cfg.CAName,
		settings: set.hold()}
	if err := l.addIdentities(c, cfg); err != nil {
		c.Free()
		return nil, err
	}
	if len(cfg.Hosts) > 0 {
		l.exclusive(func() {
			call(l.sym.ctxCallbackCtrl, c.ctx, ctrlSetServernameCB, l.servernameCB)
			call(l.sym.ctxCtrl, c.ctx, ctrlSetServernameArg, 0, set.number)
		})
	}
	return c, nil
}

func (l *Library) addIdentities(c *Context, cfg ServerConfig) (err error) {
	number := c.settings.number
	if c.ctx, err = l.newServerCtx(cfg, cfg.Default, number); err != nil {
		return err
	}
	for name, id := range cfg.Hosts {
		if c.settings.hosts[name], err = l.newServerCtx(cfg, id, number); err != nil {
			return err
		}
	}
	return nil
}

// newServerCtx makes the SSL_CTX of one identity.
func (l *Library) newServerCtx(cfg ServerConfig, id Identity, number uintptr) (uintptr, error) {
	certs, err := splitPEM("certificate", id.Cert)
	if err != nil {
		return 0, err
	}
	keys, err := splitPEM("key", id.Key)
	if err != nil {
		return 0, err
	}
	ctx, err := l.newCtx(l.sym.tlsServerMethod)
	if err != nil {
		return 0, err
	}
	l.exclusive(func() { l.setUpServer(ctx, cfg, number) })
	if err = l.identify(ctx, certs, keys, bytes.Equal(id.Cert, id.Key)); err == nil &&
		cfg.ClientAuth != ClientAuthNone {
		err = l.askClients(ctx, cfg)
	}
	if err != nil {
		l.freeCtx(ctx)
		return 0, err
	}
	return ctx, nil
}

// setUpServer does the part of the setup that cannot fail. Call it inside exclusive.
func (l *Library) setUpServer(ctx uintptr, cfg ServerConfig, number uintptr) {
	l.harden(ctx)
	if len(cfg.ALPN) > 0 {
		call(l.sym.ctxSetALPNSelect, ctx, l.alpnCB, number)
	}
	if cfg.NoResumption {
		call(l.sym.ctxSetOptions, ctx, opNoTicket)
		call(l.sym.ctxCtrl, ctx, ctrlSessCacheMode, sessCacheOff, 0)
		call(l.sym.ctxSetNumTickets, ctx, 0)
	}
}

// askClients makes a server ask its clients for certificates. The CAs of cfg.ClientCAs verify the
// certificates.
func (l *Library) askClients(ctx uintptr, cfg ServerConfig) error {
	blocks, err := splitPEM(cfg.CAName, cfg.ClientCAs)
	if err != nil {
		return err
	}
	if err := l.trustBlocks(ctx, cfg.CAName, blocks); err != nil {
		return err
	}
	mode := uintptr(verifyPeer)
	if cfg.ClientAuth == ClientAuthRequire {
		mode |= verifyFailIfNone
	}
	l.exclusive(func() { call(l.sym.ctxSetVerify, ctx, mode, l.verifyCB) })
	// The server tells clients the names of the CAs. The names help a client to choose a
	// certificate. If a name cannot be added, only this help is lost.
	for i := range blocks {
		if b := &blocks[i]; b.isCert() {
			cert, _ := l.readCert(b)
			l.exclusive(func() {
				if cert != 0 {
					call(l.sym.ctxAddClientCA, ctx, cert)
					call(l.sym.x509Free, cert)
				}
			})
		}
	}
	return nil
}

// chooseHost is the callback that chooses the identity for the name that a client asks for
// (SSL_CTX_set_tlsext_servername_callback(3)). For an unknown name the default identity stays, as
// with other servers. The client decides whether it accepts this identity.
func (l *Library) chooseHost(ssl, _, number uintptr) (result uintptr) {
	result = alpnOK
	defer func() { _ = recover() }() // a panic must not unwind C's frames
	s, ok := l.servers.Load(number)
	if !ok {
		return
	}
	name := strings.ToLower(goString(call(l.sym.sslGetServername, ssl, hostnameTypeHostname)))
	if ctx := s.(*serverSettings).host(name); ctx != 0 {
		call(l.sym.sslSetCtx, ssl, ctx)
	}
	return
}

// host returns the SSL_CTX for a name, or 0 if there is none.
func (s *serverSettings) host(name string) uintptr {
	if ctx, ok := s.hosts[name]; ok {
		return ctx
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		return s.hosts["*."+parent]
	}
	return 0
}

// useIdentity gives a client's connection its certificate and key. Call it before the handshake.
func (l *Library) useIdentity(ssl uintptr, id Identity) error {
	// The method identify loads the identity into a temporary context, and checks it. The
	// connection takes the certificate, the chain and the key from this context.
	certs, err := splitPEM("certificate", id.Cert)
	if err != nil {
		return err
	}
	keys, err := splitPEM("key", id.Key)
	if err != nil {
		return err
	}
	ctx, err := l.newCtx(l.sym.tlsClientMethod)
	if err != nil {
		return err
	}
	defer l.freeCtx(ctx)
	if err := l.identify(ctx, certs, keys, bytes.Equal(id.Cert, id.Key)); err != nil {
		return err
	}
	ok := false
	q := l.exclusive(func() {
		cert, key := call(l.sym.ctxGet0Certificate, ctx), call(l.sym.ctxGet0PrivateKey, ctx)
		out := new(uintptr)
		ok = cert != 0 && key != 0 &&
			int32(call(l.sym.sslUseCertificate, ssl, cert)) == 1 &&
			int32(call(l.sym.sslUsePrivateKey, ssl, key)) == 1 &&
			int64(call(l.sym.ctxCtrl, ctx, ctrlGetChainCerts, 0,
				uintptr(unsafe.Pointer(out)))) == 1
		if !ok || *out == 0 {
			return
		}
		for n := range int(int32(call(l.sym.skNum, *out))) {
			ok = ok && int64(call(l.sym.sslCtrl, ssl, ctrlChainCert,
				1, /* OpenSSL takes a reference of its own */
				call(l.sym.skValue, *out, uintptr(n)))) == 1
		}
	})
	if !ok {
		return fmt.Errorf("certificate %s: %w", id.Name,
			internalError("SSL_use_certificate", q))
	}
	return nil
}
