package session

import (
	"context"
	"net"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// An Engine is what a session needs of a TLS library. There are two: [OpenSSL] and [Stub]. Tests
// bring their own. All methods may be called at the same time.
type Engine interface {
	// Backend is "openssl" or "stub".
	Backend() string
	// Version is the library's own version text, "" without a library.
	Version() string
	// Info describes the library and its files.
	Info() EngineInfo
	// ParseCABundle checks a PEM file of CA certificates. name is the file's name, for errors.
	ParseCABundle(name string, pem []byte) (CABundle, error)
	// NewClientContext makes the context of clients that trust the bundle. A nil bundle is the
	// system's store.
	NewClientContext(CABundle) (EngineContext, error)
	// NewServer makes the context of a server.
	NewServer(openssl.ServerConfig) (EngineContext, error)
}

// EngineInfo describes the TLS library of an Engine.
type EngineInfo struct {
	Path    string // file of the library
	Crypto  string // file of its libcrypto
	Version string
	Pair    string     // a text: what is known about the builds of the two files
	Err     error      // why there is no library
	Trust   TrustStore // the system's trust store
}

// A TrustStore says where trusted certificates come from.
type TrustStore struct {
	Source       string // how the store was chosen
	File, Dir    string
	Certificates int      // their number
	Empty        []string // places without certificates, each with the reason
}

// A CABundle is a checked set of CA certificates. It belongs to its Engine.
type CABundle any

// An EngineContext makes connections of one configuration.
type EngineContext interface {
	// Client and Server put TLS on a TCP connection. The EngineConn owns nc. If Client or
	// Server fails, it closes nc. Nothing is sent yet.
	Client(nc *net.TCPConn, host string) (EngineConn, error)
	Server(nc *net.TCPConn) (EngineConn, error)
	// RequireTLS13 refuses older versions on the context's connections. It is called before the
	// first connection is made, or not at all.
	RequireTLS13()
	// Free frees the context. Its connections live on.
	Free()
}

// An EngineConn is one TLS connection. Three calls may run at the same time: one of ReadSome and
// WaitReset, one of Write and CloseWrite, and one of CloseContext, CutContext and Abort.
type EngineConn interface {
	SetVerify(on bool) error
	// Configure sets the settings of a client's handshake. It is called at most once, before
	// the handshake.
	Configure(openssl.ClientSettings) error
	Handshake(ctx context.Context) error
	// ReadSome waits for data and returns what is there: at least one byte, and at most limit.
	// The caller owns the data, and may give it to the function Recycle. After the peer's
	// close_notify the error is io.EOF.
	ReadSome(ctx context.Context, limit int) ([]byte, error)
	// Write sends all of p, or fails. n is the number of bytes that were sent. After a failed
	// send, later Writes fail, too. If ctx ends a Write and no later Write can succeed, the
	// error wraps openssl.ErrWriteBroken. Reads go on.
	Write(ctx context.Context, p []byte) (n int, err error)
	// CloseWrite sends close_notify after all that was written. Reads go on.
	CloseWrite(ctx context.Context) error
	// WaitReset is called after io.EOF or openssl.ErrTruncated. It waits until the peer resets
	// the connection, and returns the reset's error. If ctx ends first, it returns ctx's error.
	WaitReset(ctx context.Context) error
	// SetTag sets the connection's number for the library's Watcher (see openssl.Watcher).
	SetTag(tag int32)
	PeerSubject() string
	// Info describes the result of the handshake.
	Info() (openssl.Info, error)
	Version() string
	// CloseContext ends calls that wait, sends close_notify if the state of the connection
	// allows it, and frees the connection. It waits until the peer's system has acknowledged
	// all bytes, or ctx is done. It does not wait for the peer's close_notify.
	CloseContext(ctx context.Context) error
	// CutContext is CloseContext without close_notify.
	CutContext(ctx context.Context) error
	// Abort is CloseContext without close_notify, and without the wait for the acknowledgement.
	// So written data can be lost.
	Abort() error
}

// OpenSSL makes the Engine of a loaded library.
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

// Stub makes the Engine of a process that could not load a library. Each call that needs the
// library fails with the given error.
func Stub(why error) Engine { return stubEngine{why} }

type stubEngine struct{ why error }

func (e stubEngine) Backend() string  { return "stub" }
func (e stubEngine) Version() string  { return "" }
func (e stubEngine) Info() EngineInfo { return EngineInfo{Err: e.why} }

func (e stubEngine) ParseCABundle(string, []byte) (CABundle, error)        { return nil, e.why }
func (e stubEngine) NewClientContext(CABundle) (EngineContext, error)      { return nil, e.why }
func (e stubEngine) NewServer(openssl.ServerConfig) (EngineContext, error) { return nil, e.why }

// available fails if there is no TLS library, and says why.
func (s *Session) available() error {
	if s.Engine.Backend() != "stub" {
		return nil
	}
	return fail(kind.Backend, "no usable OpenSSL: %v", s.Engine.Info().Err)
}
