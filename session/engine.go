package session

import (
	"context"
	"net"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// Engine is what a session needs of a TLS library. [OpenSSL] and [Stub] are the
// two that exist; tests bring their own. All methods may be called at the same
// time.
type Engine interface {
	// Backend is "openssl" or "stub".
	Backend() string
	// Version is the library's own version text, "" without a library.
	Version() string
	// Info describes the library for people.
	Info() EngineInfo
	// ParseCABundle checks a PEM file of CA certificates. The name is for errors.
	ParseCABundle(name string, pem []byte) (CABundle, error)
	// NewClientContext makes the context of clients that trust the bundle, or
	// the system's store if it is nil.
	NewClientContext(CABundle) (EngineContext, error)
	// NewServer makes the context of a server.
	NewServer(openssl.ServerConfig) (EngineContext, error)
}

// EngineInfo describes the TLS library that an Engine drives.
type EngineInfo struct {
	Path    string // file of the library
	Crypto  string // file of the libcrypto that it uses
	Version string
	Pair    string     // what is known of whether the two belong together
	Err     error      // why there is none
	Trust   TrustStore // the system's trust store
}

// TrustStore says where trusted certificates come from.
type TrustStore struct {
	Source       string // how it was chosen
	File, Dir    string
	Certificates int      // how many there are
	Empty        []string // places that have none, and why
}

// CABundle is a checked set of CA certificates. It belongs to its Engine.
type CABundle any

// EngineContext makes connections of one configuration.
type EngineContext interface {
	// Client and Server wrap a TCP connection, which they own from then on,
	// also when they fail. Nothing is sent yet.
	Client(nc *net.TCPConn, host string) (EngineConn, error)
	Server(nc *net.TCPConn) (EngineConn, error)
	// RequireTLS13 refuses older versions on the connections that are made from it. It is
	// called before the first one, if at all.
	RequireTLS13()
	// Free drops the context. Connections made from it live on.
	Free()
}

// EngineConn is one TLS connection. One Read, one Write and one Close may run
// at the same time.
type EngineConn interface {
	SetVerify(on bool) error
	// Configure says what a client wants of the handshake. It is called at most once, before
	// it.
	Configure(openssl.ClientSettings) error
	Handshake(ctx context.Context) error
	// ReadSome waits for data and returns what is there, at least one byte and at most limit;
	// Recycle may be called with it. It returns io.EOF after the peer's close_notify.
	ReadSome(ctx context.Context, limit int) ([]byte, error)
	// Write sends all of p, or fails; n bytes have left. After a failed send, later Writes give
	// the same error. Reads go on.
	Write(ctx context.Context, p []byte) (n int, err error)
	// CloseWrite sends close_notify behind what was written. Reads go on.
	CloseWrite(ctx context.Context) error
	// WaitReset waits, after io.EOF or openssl.ErrTruncated, until the peer has reset the
	// connection, which is the error that it returns; or ctx's.
	WaitReset(ctx context.Context) error
	// SetTag names the connection in what the engine reports about its work.
	SetTag(tag int32)
	PeerSubject() string
	// Info is what the handshake has agreed on.
	Info() (openssl.Info, error)
	Version() string
	// CloseContext ends calls that wait, sends close_notify where that makes sense,
	// and frees the connection. It does not wait for the peer's close_notify, and for nothing
	// once ctx is done.
	CloseContext(ctx context.Context) error
	// Abort is CloseContext without close_notify. It does not wait at all.
	Abort() error
}

// OpenSSL makes an Engine of a loaded library.
func OpenSSL(l *openssl.Library) Engine { return opensslEngine{l} }

type opensslEngine struct{ lib *openssl.Library }

func (e opensslEngine) Backend() string { return "openssl" }
func (e opensslEngine) Version() string { return e.lib.Version() }

func (e opensslEngine) Info() EngineInfo {
	t := e.lib.SystemTrust()
	return EngineInfo{
		Path:    e.lib.Path(),
		Crypto:  e.lib.CryptoPath(),
		Version: e.lib.Version(),
		Pair:    e.lib.Pair(),
		Trust:   TrustStore(t),
	}
}

func (e opensslEngine) ParseCABundle(name string, pem []byte) (CABundle, error) {
	return e.lib.ParseCABundle(name, pem)
}

func (e opensslEngine) NewClientContext(b CABundle) (EngineContext, error) {
	bundle, _ := b.(*openssl.CABundle)
	c, err := e.lib.NewClientContext(bundle)
	if err != nil {
		return nil, err
	}
	return opensslContext{c}, nil
}

func (e opensslEngine) NewServer(cfg openssl.ServerConfig) (EngineContext, error) {
	c, err := e.lib.NewServer(cfg)
	if err != nil {
		return nil, err
	}
	return opensslContext{c}, nil
}

type opensslContext struct{ ctx *openssl.Context }

func (c opensslContext) Client(nc *net.TCPConn, host string) (EngineConn, error) {
	conn, err := c.ctx.NewClient(nc, host)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (c opensslContext) Server(nc *net.TCPConn) (EngineConn, error) {
	conn, err := c.ctx.NewServer(nc)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (c opensslContext) RequireTLS13() { c.ctx.RequireTLS13() }
func (c opensslContext) Free()         { c.ctx.Free() }

// Stub makes the Engine of a process that could not load a library. A session
// answers all that needs one with why.
func Stub(why error) Engine { return stubEngine{why} }

type stubEngine struct{ why error }

func (e stubEngine) Backend() string  { return "stub" }
func (e stubEngine) Version() string  { return "" }
func (e stubEngine) Info() EngineInfo { return EngineInfo{Err: e.why} }

func (e stubEngine) ParseCABundle(string, []byte) (CABundle, error)        { return nil, e.why }
func (e stubEngine) NewClientContext(CABundle) (EngineContext, error)      { return nil, e.why }
func (e stubEngine) NewServer(openssl.ServerConfig) (EngineContext, error) { return nil, e.why }

// available says why there is no TLS, if there is none.
func (s *Session) available() error {
	if s.Engine.Backend() != "stub" {
		return nil
	}
	return fail(kind.Backend, "no usable OpenSSL: %v", s.Engine.Info().Err)
}
