// Package fakeengine is a session.Engine for tests of the layers above the engine. It speaks real
// TLS with crypto/tls in OpenSSL's place, so peers cannot tell the difference. It also checks how
// the layer above uses it. The test fails if a context or connection is not freed, freed twice, or
// used after it was freed. The test fails, too, if two Reads or two Writes of one connection run at
// the same time.
//
// A session behaves as with OpenSSL's engine, except for three details: the error texts are those
// of crypto/tls, only the most frequent X509_V_ERR numbers occur, and Info has fewer facts.
package fakeengine

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"tlsd/openssl"
	"tlsd/session"
)

// Op names an operation of the engine, for Hook.
type Op string

// The operations.
const (
	ParseCABundle    Op = "ParseCABundle"
	NewClientContext Op = "NewClientContext"
	NewServerContext Op = "NewServerContext"
	Client           Op = "Client"
	Server           Op = "Server"
	SetVerify        Op = "SetVerify"
	Handshake        Op = "Handshake"
	Read             Op = "Read"
	Write            Op = "Write"
	CloseWrite       Op = "CloseWrite"
	WaitReset        Op = "WaitReset" // Hook is not called
	// Hook is called for CloseContext after a handshake, and its error is ignored. Hook is not
	// called for CutContext and Abort.
	Close Op = "Close"
)

// Engine is a session.Engine on crypto/tls. Its fields are set before it is used.
type Engine struct {
	// If Hook is not nil, each operation first calls Hook, on the goroutine of the operation.
	// The comments of the Ops name the exceptions. If Hook returns an error, the operation
	// returns this error and does nothing else. Hook may wait. The parameter ctx is the context
	// of the operation. If the operation has none, ctx never ends.
	Hook func(ctx context.Context, op Op) error
	// System has the CAs that clients without a bundle trust. If it is nil, these clients trust
	// nobody.
	System *x509.CertPool
	// Handshakes counts the successful handshakes.
	Handshakes atomic.Int64

	tb testing.TB

	mu       sync.Mutex // guards all below
	contexts int        // contexts that are not freed yet
	freed    int        // contexts that were freed
	conns    int        // connections that are not closed yet
	parsed   int        // CA bundles that were parsed
}

// New makes an Engine. At the end of the test, all its contexts and connections must be freed.
func New(tb testing.TB) *Engine {
	e := &Engine{tb: tb}
	tb.Cleanup(func() {
		if contexts, conns := e.Open(); contexts != 0 || conns != 0 {
			tb.Errorf("fakeengine: %d contexts and %d connections were never freed",
				contexts, conns)
		}
	})
	return e
}

// Open counts the contexts and connections that have not been freed.
func (e *Engine) Open() (contexts, conns int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.contexts, e.conns
}

// Freed counts the contexts that have been freed.
func (e *Engine) Freed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.freed
}

// Parsed counts the bundles that have been parsed.
func (e *Engine) Parsed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.parsed
}

func (e *Engine) count(n *int, by int) {
	e.mu.Lock()
	*n += by
	e.mu.Unlock()
}

func (e *Engine) hook(ctx context.Context, op Op) error {
	if e.Hook == nil {
		return nil
	}
	return e.Hook(ctx, op)
}

// Backend is "openssl", because the engine stands in for OpenSSL's.
func (e *Engine) Backend() string { return "openssl" }

// Version is a text that no OpenSSL has.
func (e *Engine) Version() string { return "crypto/tls stand-in" }

// Info describes the stand-in.
func (e *Engine) Info() session.EngineInfo {
	return session.EngineInfo{
		Path:    "/nowhere/libssl.so",
		Version: e.Version(),
		Trust:   session.TrustStore{Source: "test", File: "/nowhere/ca.pem"},
	}
}

// ParseCABundle accepts PEM with at least one certificate and nothing broken.
func (e *Engine) ParseCABundle(name string, text []byte) (session.CABundle, error) {
	if err := e.hook(context.Background(), ParseCABundle); err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	n := 0
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", name, n+1, err)
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 || bytes.Count(text, []byte("-----BEGIN")) != n {
		return nil, fmt.Errorf("%s: %d of %d certificates can be read", name, n,
			bytes.Count(text, []byte("-----BEGIN")))
	}
	e.count(&e.parsed, 1)
	return pool, nil
}

// NewClientContext makes the context of clients.
func (e *Engine) NewClientContext(b session.CABundle) (session.EngineContext, error) {
	if err := e.hook(context.Background(), NewClientContext); err != nil {
		return nil, err
	}
	pool, _ := b.(*x509.CertPool)
	if pool == nil {
		pool = e.System
	}
	if pool == nil {
		pool = x509.NewCertPool()
	}
	return e.newContext(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}), nil
}

// NewServer makes the context of a server.
func (e *Engine) NewServer(cfg openssl.ServerConfig) (session.EngineContext, error) {
	if err := e.hook(context.Background(), NewServerContext); err != nil {
		return nil, err
	}
	cert, err := parsedPair(cfg.Default.Cert, cfg.Default.Key)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
		NextProtos: cfg.ALPN}
	if cfg.ClientAuth != openssl.ClientAuthNone {
		conf.ClientAuth = tls.VerifyClientCertIfGiven
		if cfg.ClientAuth == openssl.ClientAuthRequire {
			conf.ClientAuth = tls.RequireAndVerifyClientCert
		}
		conf.ClientCAs = x509.NewCertPool()
		conf.ClientCAs.AppendCertsFromPEM(cfg.ClientCAs)
	}
	hosts := map[string]*tls.Certificate{}
	for name, id := range cfg.Hosts {
		c, err := parsedPair(id.Cert, id.Key)
		if err != nil {
			return nil, err
		}
		hosts[name] = &c
	}
	conf.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return hosts[h.ServerName], nil
	}
	return e.newContext(conf), nil
}

// pairs has each certificate and key that were parsed, as a tls.Certificate. When a session adds a
// certificate to a server context, the session makes a new context with all certificates, old and
// new. The old ones come from pairs.
var pairs sync.Map

// parsedPair is tls.X509KeyPair, but parses each pair only once.
func parsedPair(cert, key []byte) (tls.Certificate, error) {
	text := string(cert) + string(key)
	if pair, ok := pairs.Load(text); ok {
		return pair.(tls.Certificate), nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err == nil {
		pairs.Store(text, pair)
	}
	return pair, err
}

type engineContext struct {
	e   *Engine
	cfg *tls.Config

	mu    sync.Mutex // guards freed
	freed bool
}

func (e *Engine) newContext(cfg *tls.Config) *engineContext {
	e.count(&e.contexts, 1)
	return &engineContext{e: e, cfg: cfg}
}

func (c *engineContext) Client(nc *net.TCPConn, host string) (session.EngineConn, error) {
	return c.wrap(nc, host, Client)
}

func (c *engineContext) Server(nc *net.TCPConn) (session.EngineConn, error) {
	return c.wrap(nc, "", Server)
}

func (c *engineContext) wrap(nc *net.TCPConn, host string, op Op) (session.EngineConn, error) {
	if err := c.e.hook(context.Background(), op); err != nil {
		nc.Close()
		return nil, err
	}
	c.mu.Lock()
	freed := c.freed
	c.mu.Unlock()
	if freed {
		nc.Close()
		c.e.tb.Errorf("fakeengine: a freed context was asked for a %s", op)
		return nil, errors.New("the context is freed")
	}
	cfg := c.cfg.Clone()
	cfg.ServerName = host
	c.e.count(&c.e.conns, 1)
	return &conn{e: c.e, nc: nc, end: cutConn{TCPConn: nc}, cfg: cfg, client: op == Client}, nil
}

func (c *engineContext) RequireTLS13() { c.cfg.MinVersion = tls.VersionTLS13 }

func (c *engineContext) Free() {
	c.mu.Lock()
	twice := c.freed
	c.freed = true
	c.mu.Unlock()
	if twice {
		c.e.tb.Errorf("fakeengine: a context was freed twice")
		return
	}
	c.e.count(&c.e.contexts, -1)
	c.e.count(&c.e.freed, 1)
}
