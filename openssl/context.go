package openssl

import (
	"errors"
	"net"
	"sync"
	"unsafe"
)

// A Context has what connections share: a client's trust store, or a server's certificate and key.
// It does not change once it is made, because an SSL_CTX must not change after the first SSL_new
// (openssl-threads(7)). Any goroutine can make any number of connections from it. Free it when no
// more connections will be made. Its connections live on.
type Context struct {
	lib    *Library
	server bool
	store  string // a client's trust store, for people
	trust  string // equal for the same store, and different for any other

	min uintptr // the lowest version of TLS, if it is above that of ctx

	clientAuth ClientAuth      // a server's
	settings   *serverSettings // a server's, for the callbacks

	mu  sync.RWMutex // held by Free; shared by the users of ctx
	ctx uintptr      // 0 after Free
}

// RequireTLS13 refuses older versions of TLS on the connections of the context. Call it before the
// first connection is made. (The setting is not in the SSL_CTX, because contexts without this
// requirement may share it.)
func (c *Context) RequireTLS13() { c.min = tls13 }

// NewClientContext makes a context for clients that trust the bundle, or with nil the system's
// store. It is cheap, because the store is shared.
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

// NewServerContext makes a context for servers. certPEM has the server's own certificate first. The
// certificates of the authorities between it and the root follow, if there are any. keyPEM has the
// private key. Either may have other blocks too, so both can be the same file. Keys with a password
// are refused, because nobody can be asked for it. The error is usually a *PEMError, its What
// "certificate" or "key".
func (l *Library) NewServerContext(certPEM, keyPEM []byte) (*Context, error) {
	return l.NewServer(ServerConfig{Default: Identity{Cert: certPEM, Key: keyPEM}})
}

// identify gives a context its certificate, chain and key.
func (l *Library) identify(ctx uintptr, certs, keys []pemBlock, sameFile bool) error {
	var leaf uintptr // freed at the end, because the check of the key needs it
	defer func() {
		if leaf != 0 {
			l.exclusive(func() { call(l.sym.x509Free, leaf) })
		}
	}()
	for i := range certs {
		b := &certs[i]
		if !b.isCert() {
			continue
		}
		cert, q := l.readCert(b)
		if cert == 0 {
			return b.fault("certificate", "is not a valid certificate: "+q.reason(), q)
		}
		ok := false
		q = l.exclusive(func() {
			if leaf == 0 {
				leaf = cert
				ok = int32(call(l.sym.ctxUseCertificate, ctx, cert)) == 1
			} else {
				ok = int64(call(l.sym.ctxCtrl, ctx, ctrlChainCert,
					1 /* takes a reference of its own */, cert)) == 1
				call(l.sym.x509Free, cert)
			}
		})
		if !ok {
			return b.fault("certificate", "cannot be used: "+q.reason(), q)
		}
	}
	if leaf == 0 {
		return &PEMError{What: "certificate", Reason: "has no certificate in it: its " +
			"first PEM block is \"" + certs[0].label + "\""}
	}

	var block *pemBlock
	for i := range keys {
		if keys[i].isKey() {
			block = &keys[i]
			break
		}
	}
	switch {
	case block == nil:
		return &PEMError{What: "key", Reason: "has no private key in it: its first PEM " +
			"block is \"" + keys[0].label + "\""}
	case block.encrypted:
		return block.fault("key", "is encrypted: tlsd never asks for a password; remove "+
			"it with `openssl pkey`", nil)
	case block.label == "OPENSSH PRIVATE KEY":
		return block.fault("key", "is in OpenSSH's own format: convert it with "+
			"`ssh-keygen -p -m PEM`", nil)
	}
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
		return block.fault("key", "does not match the certificate: the server's own must "+
			"be the first one in the file", q)
	case !matches:
		return block.fault("key", "does not match the certificate (of a chain, the "+
			"server's own must come first)", q)
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
		// TLS 1.2 or newer; openssl.cnf may demand more.
		ok = true
		if int64(call(l.sym.ctxCtrl, ctx, ctrlGetMinProto, 0, 0)) != tls13 {
			ok = int64(call(l.sym.ctxCtrl, ctx, ctrlSetMinProto, tls12, 0)) == 1
		}
		call(l.sym.ctxCtrl, ctx, ctrlMode,
			modePartialWrite|modeMovingBuffer|modeReleaseBuffer, 0)
		// One SSL_read must not answer a peer that asks without end.
		call(l.sym.ctxCtrl, ctx, ctrlClearMode, modeAutoRetry, 0)
		options := uintptr(opNoCompression | opNoRenegotiation)
		if l.major >= 3 {
			// Without this option OpenSSL fails in both directions if the peer has cut
			// one. The cut is still detected (cut in step.go).
			options |= opIgnoreEOF
		}
		call(l.sym.ctxSetOptions, ctx, options)
		// one read(2) a record instead of two
		call(l.sym.ctxCtrl, ctx, ctrlSetReadAhead, 1, 0)
		l.tellSecrets(ctx)
		// If a client certificate is asked for, resumption fails without an id
		// (SSL_CTX_set_session_id_context(3)).
		call(l.sym.ctxSetSessionIDContext, ctx, uintptr(unsafe.Pointer(&id[0])),
			uintptr(len(id)))
	})
	if !ok {
		l.freeCtx(ctx)
		return 0, internalError("SSL_CTX_new", q)
	}
	return ctx, nil
}

// refCtx makes a reference to an SSL_CTX. freeCtx frees it.
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

// Free gives up the context. Its connections live on. It is idempotent.
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

// NewClient makes a client's connection over nc. The connection owns nc from then on, even if
// NewClient fails. host is the expected peer: a name (with or without a final dot) or an IP address
// (an IPv6 zone is ignored). Nothing is sent before Handshake.
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

// NewServer makes a server's connection over nc. The connection owns nc from then on, even if
// NewServer fails. Nothing is sent before Handshake.
func (c *Context) NewServer(nc *net.TCPConn) (*Conn, error) {
	if !c.server {
		nc.Close()
		return nil, errors.New("a client's context cannot make servers")
	}
	return c.newConn(nc, peerName{})
}
