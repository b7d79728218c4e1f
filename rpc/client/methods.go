package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"
	"unicode/utf8"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
)

// A Handle names a connection or a server context of one session: 1 to 2147483647.
type Handle int32

// NewClient opens a TCP connection. The parameter host is a name or an address, and port is 1 to
// 65535. TLS starts with Handshake. The caller must close the handle with CloseConn.
func (c *Client) NewClient(ctx context.Context, host string, port int) (Handle, error) {
	return call[Handle](ctx, c, "tls.NewClient", host, port)
}

// Handshake does the TLS handshake and verifies the server's certificate.
func (c *Client) Handshake(ctx context.Context, h Handle) error {
	return c.Call(ctx, "tls.Handshake", []any{h}, nil)
}

// Write sends all of data, 0 to 16 MiB (1<<24 bytes), or fails. It returns len(data).
func (c *Client) Write(ctx context.Context, h Handle, data []byte) (int, error) {
	const method = "tls.Write"
	if len(data) > wire.MaxBlob {
		return 0, newError(kind.Params, nil,
			"%d bytes of data; at most %d are possible in one call", len(data),
			wire.MaxBlob).forMethod(method)
	}
	if data == nil {
		data = []byte{}
	}
	return call[int](ctx, c, method, h, data)
}

// Read waits for data and returns what is there: 1 to maxBytes bytes, which the caller owns. An
// empty result without an error means that the peer has ended its direction with close_notify. A
// connection that was cut is an error of kind "io". maxBytes is 1 to 16777216.
func (c *Client) Read(ctx context.Context, h Handle, maxBytes int) ([]byte, error) {
	return call[[]byte](ctx, c, "tls.Read", h, maxBytes)
}

// CloseConn is tls.Close: it sends close_notify and frees the connection's handle. If a write has
// failed and no call has returned the error yet, CloseConn returns this error. (Close ends the
// whole session.)
func (c *Client) CloseConn(ctx context.Context, h Handle) error {
	return c.Call(ctx, "tls.Close", []any{h}, nil)
}

// Status returns the state of the two directions of a connection. A WriteError in the result counts
// as returned, so CloseConn does not return it again.
func (c *Client) Status(ctx context.Context, h Handle) (Status, error) {
	w, err := call[wire.Status](ctx, c, "tls.Status", h)
	s := Status{Read: w.Read, Write: w.Write, Received: w.Received, Sent: w.Sent}
	if w.ReadError != nil {
		s.ReadError = fromWire(w.ReadError)
	}
	if w.WriteError != nil {
		s.WriteError = fromWire(w.WriteError)
	}
	return s, err
}

// A Status is the state of the two directions of a connection.
type Status struct {
	Read       string // "open", "end" (the peer's close_notify) or "failed"
	Write      string // "open", "shut" (close_notify was sent) or "failed"
	Received   int64  // bytes that were put on the data channel, or returned by Read
	Sent       int64  // bytes that have left for the peer
	ReadError  *Error // nil unless reading has failed
	WriteError *Error // nil unless writing has failed
}

// Flush waits until at least total bytes have left for the peer since the handshake of the
// connection.
func (c *Client) Flush(ctx context.Context, h Handle, total int64) error {
	return c.Call(ctx, "tls.Flush", []any{h, total}, nil)
}

// Shutdown sends all that was written, and then close_notify. Reading goes on.
func (c *Client) Shutdown(ctx context.Context, h Handle) error {
	return c.Call(ctx, "tls.Shutdown", []any{h}, nil)
}

// SetInsecureSkipVerify turns the verification of the server's certificate off (true) or on again,
// for one connection, before its handshake. Use it for tests only.
func (c *Client) SetInsecureSkipVerify(ctx context.Context, h Handle, on bool) error {
	n := 0
	if on {
		n = 1
	}
	return c.Call(ctx, "tls.SetInsecureSkipVerify", []any{h, n}, nil)
}

// SetTimeout sets the timeout of later calls:
//
//   - h is a connection: each Handshake, Read, ReadPlain and WritePlain; each 64 KiB of a Write;
//     the close_notify of a Shutdown.
//   - h is a server context: each Accept.
//   - h is 0: each NewClient.
//
// A call that reaches its timeout fails with kind "timeout". The timeout is rounded up to
// milliseconds; the maximum is 2147483647 ms. 0 brings tlsd's own timeouts back.
func (c *Client) SetTimeout(ctx context.Context, h Handle, timeout time.Duration) error {
	return c.Call(ctx, "tls.SetTimeout", []any{h, wire.Milliseconds(timeout)}, nil)
}

// Wait returns a handle that is ready: a Read or an Accept on this handle does not have to wait. If
// no handle is ready within the timeout, Wait returns 0. The timeout is rounded up to milliseconds.
// A negative timeout means no limit. Wait looks at the handles whose option "watch" is "1". It does
// not look at the handle of a Conn, because a Conn's data goes over a data channel.
func (c *Client) Wait(ctx context.Context, timeout time.Duration) (Handle, error) {
	return call[Handle](ctx, c, "tls.Wait", wire.Milliseconds(timeout))
}

// NewServerContext loads a certificate chain and its private key from PEM files. Relative paths
// begin at this process's working directory. The caller must close the handle with
// CloseServerContext.
func (c *Client) NewServerContext(ctx context.Context, certFile, keyFile string) (Handle, error) {
	const method = "tls.NewServerContext"
	cert, err := absolute(method, certFile)
	if err != nil {
		return 0, err
	}
	key, err := absolute(method, keyFile)
	if err != nil {
		return 0, err
	}
	return call[Handle](ctx, c, method, cert, key)
}

// Accept waits for a client, and does the handshake. The parameters host and port have two forms:
//
//   - host is an address of this machine, and port is 1 to 65535. tlsd listens there from the first
//     Accept until CloseServerContext.
//   - host is "", and port is 0. Accept takes clients from all addresses where the context listens
//     already (see the method Listen).
func (c *Client) Accept(ctx context.Context, ctxHandle Handle, host string, port int) (
	Handle, error) {
	return call[Handle](ctx, c, "tls.Accept", ctxHandle, host, port)
}

// CloseServerContext ends waiting Accepts with kind "cancelled", and stops listening. Accepted
// connections live on.
func (c *Client) CloseServerContext(ctx context.Context, ctxHandle Handle) error {
	return c.Call(ctx, "tls.CloseServerContext", []any{ctxHandle}, nil)
}

// SetCaBundle sets the trust store for later calls of NewClient. The store has the CA certificates
// of the PEM file at path. If path is "", it is the system's store again. A relative path begins at
// this process's working directory.
func (c *Client) SetCaBundle(ctx context.Context, path string) error {
	const method = "tls.SetCaBundle"
	if path != "" {
		var err error
		if path, err = absolute(method, path); err != nil {
			return err
		}
	}
	return c.Call(ctx, method, []any{path}, nil)
}

// PeerCertSubject is the subject of the peer's certificate, such as "/CN=example.com". It is "" if
// the peer has shown no certificate.
func (c *Client) PeerCertSubject(ctx context.Context, h Handle) (string, error) {
	return call[string](ctx, c, "tls.PeerCertSubject", h)
}

// Backend is "openssl", or "stub" if tlsd could not load libssl.
func (c *Client) Backend(ctx context.Context) (string, error) {
	return call[string](ctx, c, "tls.Backend")
}

// Version is the negotiated version of a connection, such as "TLSv1.3". With handle 0 it is the
// version of the library.
func (c *Client) Version(ctx context.Context, h Handle) (string, error) {
	if h == 0 {
		return call[string](ctx, c, "tls.Version")
	}
	return call[string](ctx, c, "tls.Version", h)
}

// LastError is the text of the session's most recent error, or "". Errors that this package makes
// do not count.
func (c *Client) LastError(ctx context.Context) (string, error) {
	return call[string](ctx, c, "tls.LastError")
}

// ErrVersion says that the daemon and this package have no version of the protocol in common.
// Install a daemon and a program of versions that fit.
var ErrVersion = errors.New("tlsd and this program have no version of the protocol in common")

// Hello greets tlsd, asks for data channels and checks the version of the protocol. The error may
// be ErrVersion. Dial calls Hello; another call does no harm.
func (c *Client) Hello(ctx context.Context) (wire.Hello, error) {
	var h wire.Hello
	p := wire.HelloParams{Version: wire.Version, Capabilities: []string{wire.CapabilityData}}
	if err := c.Call(ctx, "tls.Hello", p, &h); err != nil {
		return h, err
	}
	if h.Version < 1 || h.Version > wire.Version {
		return h, fmt.Errorf("%w: %q %q speaks version %d, this program version %d",
			ErrVersion, h.Server.Name, h.Server.Version, h.Version, wire.Version)
	}
	return h, nil
}

// Info describes the daemon, its library and its trust store, for people.
func (c *Client) Info(ctx context.Context) (wire.Info, error) {
	return call[wire.Info](ctx, c, "tls.Info")
}

// Discover returns tlsd's OpenRPC document.
func (c *Client) Discover(ctx context.Context) (json.RawMessage, error) {
	return call[json.RawMessage](ctx, c, "rpc.discover")
}

// call makes a call with parameters by position.
func call[R any](ctx context.Context, c *Client, method string, params ...any) (R, error) {
	var r R
	if params == nil {
		return r, c.Call(ctx, method, nil, &r)
	}
	err := c.Call(ctx, method, params, &r)
	return r, err
}

// absolute makes a path absolute. It fails for an empty path. It also fails for a path that is not
// UTF-8, because encoding/json would silently replace bytes.
func absolute(method, path string) (string, error) {
	if !utf8.ValidString(path) {
		return "", newError(kind.Params, nil,
			"path %q: is not UTF-8, which JSON needs; rename the file",
			path).forMethod(method)
	}
	if path == "" {
		return "", newError(kind.Params, nil, "path: is empty").forMethod(method)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", newError(kind.Params, err, "path %s: %v", path, err).forMethod(method)
	}
	return abs, nil
}
