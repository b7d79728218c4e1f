package openssl

import (
	"errors"
	"net"
	"slices"
	"sync"
	"unsafe"
)

// A Context has what connections share: a client's trust store, or a server's certificate and key.
// After the first connection is made, the SSL_CTX of the Context does not change
// (openssl-threads(7) forbids changes). Any number of goroutines may make connections with one
// Context at the same time. Call Free after the last connection is made. The connections live on.
type Context struct {
	lib    *Library
	server bool
	store  string // the trust store that verifies peers, for error texts
	trust  string // of a client: an id of this store, for resumption; no other store has it

	min uintptr // the lowest version of TLS for each SSL; 0: the lowest version that ctx has

	clientAuth ClientAuth      // of a server
	settings   *serverSettings // of a server, for the callbacks; nil after Free

	mu  sync.RWMutex // guards ctx and settings: Free writes, newConn reads
	ctx uintptr      // 0 after Free
}

// RequireTLS13 makes the connections of the context refuse versions of TLS before 1.3. Call it
// before the first connection is made. (The setting is not in the SSL_CTX, because contexts without
// this requirement may share the SSL_CTX.)
func (c *Context) RequireTLS13() { c.min = tls13 }

// NewClientContext makes a context for clients that trust the bundle. If bundle is nil, they trust
// the system's store. Contexts with the same store share one SSL_CTX, so the call is cheap. But the
// first call for the system's store loads the store, and so does the first call after a change of
// its files.
func (l *Library) NewClientContext(bundle *CABundle) (*Context, error) {
	if bundle == nil {
		ctx, store, id, err := l.systemContext()
		if err != nil {
			return nil, err
		}
		return &Context{lib: l, ctx: ctx, store: store, trust: id}, nil
	}
	if bundle.lib != l {
		return nil, errors.New("the CA bundle belongs to another libssl")
	}
	ctx, err := bundle.ref()
	if err != nil {
		return nil, err
	}
	return &Context{lib: l, ctx: ctx, store: bundle.name + " (CA bundle)", trust: bundle.id},
		nil
}

// NewServerContext makes a context for servers. certPEM has the server's own certificate first.
// Intermediate certificates follow, if there are any. keyPEM has the private key. Both may have
// other blocks too, so both can be the same file. An encrypted key is refused, because nobody can
// be asked for its password. The error is usually a *PEMError, whose field What is "certificate" or
// "key".
func (l *Library) NewServerContext(certPEM, keyPEM []byte) (*Context, error) {
	return l.NewServer(ServerConfig{Default: Identity{Cert: certPEM, Key: keyPEM}})
}

// identify gives a context its certificate, chain and key. The parameter sameFile says that certs
// and keys come from one file. It only changes the text of an error.
func (l *Library) identify(ctx uintptr, certs, keys []pemBlock, sameFile bool) error {
	leaf, err := l.useCerts(ctx, certs)
	if leaf != 0 { // freed only at the end, because the check of the key needs it
		defer func() { l.exclusive(func() { call(l.sym.x509Free, leaf) }) }()
	}
	if err != nil {
		return err
	}
	block, err := keyBlock(keys)
	if err != nil {
		return err
	}
	return l.useKey(ctx, leaf, block, sameFile)
}

// useCerts gives a context its certificate and chain. The first certificate of the blocks is the
// context's own, and the others are the chain. useCerts returns the first certificate. If this is
// not 0, the caller must free it, even after an error.
func (l *Library) useCerts(ctx uintptr, blocks []pemBlock) (leaf uintptr, err error) {
	for i := range blocks {
		b := &blocks[i]
		if !b.isCert() {
			continue
		}
		cert, q := l.readCert(b)
		if cert == 0 {
			return leaf, b.fault("certificate", "is not a valid certificate: "+
				q.reason(), q)
		}
		ok := false
		q = l.exclusive(func() {
			if leaf == 0 {
				leaf = cert
				ok = int32(call(l.sym.ctxUseCertificate, ctx, cert)) == 1
			} else {
				ok = int64(call(l.sym.ctxCtrl, ctx, ctrlChainCert,
					1 /* OpenSSL takes a reference of its own */, cert)) == 1
				call(l.sym.x509Free, cert)
			}
		})
		if !ok {
			return leaf, b.fault("certificate", "cannot be used: "+q.reason(), q)
		}
	}
	if leaf == 0 {
		return 0, &PEMError{What: "certificate", Reason: "has no certificate in it: its " +
			"first PEM block is \"" + blocks[0].label + "\""}
	}
	return leaf, nil
}

// keyBlock finds the first private key. It refuses a key in a form that this package cannot use.
func keyBlock(blocks []pemBlock) (*pemBlock, error) {
	i := slices.IndexFunc(blocks, func(b pemBlock) bool { return b.isKey() })
	if i < 0 {
		return nil, &PEMError{What: "key", Reason: "has no private key in it: its first " +
			"PEM block is \"" + blocks[0].label + "\""}
	}
	block := &blocks[i]
	switch {
	case block.encrypted:
		return nil, block.fault("key", "is encrypted: tlsd never asks for a password; "+
			"remove it with `openssl pkey`", nil)
	case block.label == "OPENSSH PRIVATE KEY":
		return nil, block.fault("key", "is in OpenSSH's own format: convert it with "+
			"`ssh-keygen -p -m PEM`", nil)
	}
	return block, nil
}

// useKey gives a context the private key of the certificate leaf. For sameFile see identify.
func (l *Library) useKey(ctx, leaf uintptr, block *pemBlock, sameFile bool) error {
	key, q := l.readKey(block)
	if key == 0 {
		return block.fault("key", "is not a valid private key: "+q.reason(), q)
	}
	matches, used := false, false
	q = l.exclusive(func() {
		matches = int32(call(l.sym.x509CheckPrivateKey, leaf, key)) == 1
		used = matches && int32(call(l.sym.ctxUsePrivateKey, ctx, key)) == 1 &&
			int32(call(l.sym.ctxCheckPrivateKey, ctx)) == 1
		call(l.sym.pkeyFree, key)
	})
	switch {
	case !matches && sameFile:
		return block.fault("key", "does not match the certificate; the server's own "+
			"certificate must be the first one in the file", q)
	case !matches:
		return block.fault("key", "does not match the certificate; in a chain, the "+
			"server's own certificate must come first", q)
	case !used:
		return block.fault("key", "cannot be used: "+q.reason(), q)
	}
	return nil
}

// newClientCtx makes an SSL_CTX for clients that trusts nobody yet.
func (l *Library) newClientCtx() (uintptr, error) {
	ctx, err := l.newCtx(l.sym.tlsClientMethod)
	if err == nil {
		l.exclusive(func() {
			call(l.sym.ctxSetVerify, ctx, verifyPeer, l.verifyCB)
			call(l.sym.ctxCtrl, ctx, ctrlSessCacheMode,
				sessCacheClient|sessCacheNoInternal, 0)
			call(l.sym.ctxSetNewSession, ctx, l.newSessionCB)
		})
	}
	return ctx, err
}

// newCtx makes an SSL_CTX with the settings of all contexts.
func (l *Library) newCtx(method uintptr) (ctx uintptr, err error) {
	ok := false
	id := []byte("tlsd")
	q := l.exclusive(func() {
		if ctx = call(l.sym.ctxNew, call(method)); ctx == 0 {
			return
		}
		// The lowest version is TLS 1.2, or TLS 1.3 if openssl.cnf says so.
		ok = true
		if int64(call(l.sym.ctxCtrl, ctx, ctrlGetMinProto, 0, 0)) != tls13 {
			ok = int64(call(l.sym.ctxCtrl, ctx, ctrlSetMinProto, tls12, 0)) == 1
		}
		call(l.sym.ctxCtrl, ctx, ctrlMode,
			modePartialWrite|modeMovingBuffer|modeReleaseBuffer, 0)
		// With SSL_MODE_AUTO_RETRY one SSL_read might never return (see doc.go).
		call(l.sym.ctxCtrl, ctx, ctrlClearMode, modeAutoRetry, 0)
		options := uintptr(opNoCompression | opNoRenegotiation)
		if l.major >= 3 {
			// Without this option both directions of the SSL fail if the peer ends its
			// direction without close_notify. With the option such an end looks like
			// close_notify. The methods step and cut (step.go) tell the two apart.
			options |= opIgnoreEOF
		}
		call(l.sym.ctxSetOptions, ctx, options)
		// With this setting a record costs one read(2) instead of two.
		call(l.sym.ctxCtrl, ctx, ctrlSetReadAhead, 1, 0)
		l.tellSecrets(ctx)
		// A server that asks for client certificates needs a session ID context. Without it
		// resumption fails (SSL_CTX_set_session_id_context(3)).
		call(l.sym.ctxSetSessionIDContext, ctx, uintptr(unsafe.Pointer(&id[0])),
			uintptr(len(id)))
	})
	if !ok {
		l.freeCtx(ctx)
		return 0, internalError("SSL_CTX_new", q)
	}
	return ctx, nil
}

// refCtx adds a reference to an SSL_CTX. freeCtx drops a reference.
func (l *Library) refCtx(ctx uintptr) error {
	ok := false
	q := l.exclusive(func() { ok = int32(call(l.sym.ctxUpRef, ctx)) == 1 })
	if !ok {
		return internalError("SSL_CTX_up_ref", q)
	}
	return nil
}

func (l *Library) freeCtx(ctx uintptr) {
	if ctx != 0 {
		l.exclusive(func() { call(l.sym.ctxFree, ctx) })
	}
}

// Free drops the context's reference to its SSL_CTX. The connections live on. A second Free does
// nothing.
func (c *Context) Free() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lib.freeCtx(c.ctx)
	c.ctx = 0
	if c.settings != nil {
		c.settings.release()
		c.settings = nil
	}
}

// NewClient makes a client's connection over nc. The connection owns nc. If NewClient fails, it
// closes nc. The parameter host is the expected peer: a name (with or without a final dot) or an IP
// address (an IPv6 zone is ignored). Nothing is sent before Handshake.
func (c *Context) NewClient(nc *net.TCPConn, host string) (*Conn, error) {
	name, err := parsePeerName(host)
	if err == nil && c.server {
		err = errors.New("a server's context cannot make clients")
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c.newConn(nc, name)
}

// NewServer makes a server's connection over nc. The connection owns nc. If NewServer fails, it
// closes nc. Nothing is sent before Handshake.
func (c *Context) NewServer(nc *net.TCPConn) (*Conn, error) {
	if !c.server {
		nc.Close()
		return nil, errors.New("a client's context cannot make servers")
	}
	return c.newConn(nc, peerName{})
}
