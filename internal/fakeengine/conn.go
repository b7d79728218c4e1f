package fakeengine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/openssl"
)

// conn is one connection, a session.EngineConn.
type conn struct {
	e      *Engine
	nc     *net.TCPConn
	end    cutConn // wraps nc for the tls.Conn
	cfg    *tls.Config
	client bool

	mu     sync.Mutex      // guards all below
	busy   map[Op]struct{} // operations that are under way
	tls    *tls.Conn       // from Handshake on
	done   bool            // the handshake has succeeded
	shut   bool            // CloseWrite has been called
	broken error           // why Writes fail: the error of a Write or of a Read
	closed bool
}

// cutConn notes in cut that the TCP stream has ended without close_notify. crypto/tls does not
// report this: if the stream ends between two records, its Read returns io.EOF, as after
// close_notify. After close_notify crypto/tls reads no more, so cut stays false.
type cutConn struct {
	*net.TCPConn
	cut     atomic.Bool
	patient atomic.Bool // a CloseWrite is under way; it may wait until its context ends
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if errors.Is(err, io.EOF) {
		c.cut.Store(true)
	}
	return n, err
}

// SetWriteDeadline ignores the deadline of its caller. Only crypto/tls calls it, to limit the
// sending of close_notify to 5 s. But the limits here are others: CloseContext may wait only for a
// moment, and CloseWrite until its context ends.
func (c *cutConn) SetWriteDeadline(time.Time) error {
	if c.patient.Load() {
		return nil
	}
	return c.TCPConn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
}

// enter notes that an operation begins. It returns a function that notes the operation's end. If
// the operation may not begin now, enter fails the test.
func (c *conn) enter(op Op) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.e.tb.Errorf("fakeengine: %s on a closed connection", op)
		return nil, net.ErrClosed
	}
	if _, twice := c.busy[op]; twice {
		c.e.tb.Errorf("fakeengine: two calls of %s at the same time", op)
	}
	if c.busy == nil {
		c.busy = map[Op]struct{}{}
	}
	c.busy[op] = struct{}{}
	return func() {
		c.mu.Lock()
		delete(c.busy, op)
		c.mu.Unlock()
	}, nil
}

func (c *conn) SetVerify(on bool) error {
	leave, err := c.enter(SetVerify)
	if err != nil {
		return err
	}
	defer leave()
	if err := c.e.hook(context.Background(), SetVerify); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tls != nil || !c.client {
		c.e.tb.Errorf("fakeengine: SetVerify of a server, or after Handshake")
	}
	c.cfg.InsecureSkipVerify = !on
	return nil
}

func (c *conn) Configure(s openssl.ClientSettings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tls != nil || !c.client {
		c.e.tb.Errorf("fakeengine: Configure of a server, or after Handshake")
	}
	c.cfg.NextProtos = s.ALPN
	if s.TLS13 {
		c.cfg.MinVersion = tls.VersionTLS13
	}
	if s.Identity != nil {
		cert, err := tls.X509KeyPair(s.Identity.Cert, s.Identity.Key)
		if err != nil {
			return err
		}
		c.cfg.Certificates = []tls.Certificate{cert}
	}
	return nil
}

func (c *conn) Handshake(ctx context.Context) error {
	leave, err := c.enter(Handshake)
	if err != nil {
		return err
	}
	defer leave()
	if err := c.e.hook(ctx, Handshake); err != nil {
		return err
	}
	c.mu.Lock()
	if c.tls != nil {
		c.e.tb.Errorf("fakeengine: a second Handshake")
	}
	if c.client {
		c.tls = tls.Client(&c.end, c.cfg)
	} else {
		c.tls = tls.Server(&c.end, c.cfg)
	}
	t := c.tls
	c.mu.Unlock()

	err = t.HandshakeContext(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done = err == nil; c.done {
		c.e.Handshakes.Add(1)
	}
	var verify *tls.CertificateVerificationError
	var sys *net.OpError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case c.closed:
		return net.ErrClosed
	case errors.As(err, &verify):
		return verifyError(verify)
	case errors.As(err, &sys) && sys.Op != "remote error": // a remote error is an alert
		return err
	default:
		version := strings.Contains(err.Error(), "protocol version") ||
			strings.Contains(err.Error(), "unsupported versions")
		return &openssl.HandshakeError{Queue: []string{err.Error()}, Reason: err.Error(),
			Version: version}
	}
}

func verifyError(err *tls.CertificateVerificationError) error {
	v := &openssl.VerifyError{Code: 1, Reason: err.Err.Error(),
		Subject: subject(err.UnverifiedCertificates[0]), Store: "test"}
	var (
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		v.Code = 20 // X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
	case errors.As(err, &host):
		v.Code = 62 // X509_V_ERR_HOSTNAME_MISMATCH
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		v.Code = 10 // X509_V_ERR_CERT_HAS_EXPIRED
	}
	return v
}

// interruptible runs f, which reads or writes. The argument setDeadline is SetReadDeadline or
// SetWriteDeadline of the connection that f uses. If ctx ends before f returns, interruptible sets
// a deadline in the past. So f fails, and interruptible returns the error of ctx.
func interruptible(ctx context.Context, setDeadline func(time.Time) error,
	f func() (int, error)) (int, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		setDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	n, err := f()
	if !stop() {
		<-interrupted
		setDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = ctx.Err()
		}
	}
	return n, err
}

// someBytes limits the bytes of one ReadSome.
const someBytes = 32 << 10

func (c *conn) ReadSome(ctx context.Context, limit int) ([]byte, error) {
	leave, err := c.enter(Read)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := c.e.hook(ctx, Read); err != nil {
		return nil, err
	}
	p := make([]byte, min(limit, someBytes))
	n, err := interruptible(ctx, c.nc.SetReadDeadline, func() (int, error) {
		return c.ready().Read(p)
	})
	switch {
	case n > 0:
		return p[:n], nil
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF) && c.end.cut.Load():
		return nil, openssl.ErrTruncated
	case !errors.Is(err, io.EOF) && ctx.Err() == nil:
		c.fail(err) // also ends a Write that waits for room in the socket
	}
	return nil, c.unlessClosed(err)
}

// fail makes Writes fail from now on.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
		c.nc.SetWriteDeadline(time.Unix(1, 0))
	}
}

// failed returns the reason why Writes fail, or nil.
func (c *conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return openssl.ErrShut
	}
	return c.broken
}

func (c *conn) Write(ctx context.Context, p []byte) (int, error) {
	leave, err := c.enter(Write)
	if err != nil {
		return 0, err
	}
	defer leave()
	if err := c.e.hook(ctx, Write); err != nil {
		return 0, err
	}
	if err := c.failed(); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	n, err := interruptible(ctx, c.nc.SetWriteDeadline, func() (int, error) {
		return c.ready().Write(p)
	})
	if err == nil {
		return n, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && c.failed() != nil {
		err = c.failed() // another goroutine's fail() has interrupted this Write
	}
	if c.fail(err); ctx.Err() != nil {
		c.mu.Lock()
		c.broken = openssl.ErrWriteBroken
		c.mu.Unlock()
		err = fmt.Errorf("%w; %w", err, openssl.ErrWriteBroken)
	}
	return n, c.unlessClosed(err)
}

func (c *conn) CloseWrite(ctx context.Context) error {
	leave, err := c.enter(Write)
	if err != nil {
		return err
	}
	defer leave()
	if err := c.e.hook(ctx, CloseWrite); err != nil {
		return err
	}
	if err := c.failed(); err != nil {
		return err
	}
	c.end.patient.Store(true)
	_, err = interruptible(ctx, c.nc.SetWriteDeadline, func() (int, error) {
		return 0, c.ready().CloseWrite()
	})
	c.end.patient.Store(false)
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	return c.unlessClosed(err)
}

func (c *conn) WaitReset(ctx context.Context) error {
	leave, err := c.enter(WaitReset)
	if err != nil {
		return err
	}
	defer leave()
	raw, err := c.nc.SyscallConn()
	if err != nil {
		return err
	}
	_, err = interruptible(ctx, c.nc.SetReadDeadline, func() (int, error) {
		reset := error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
			p := []unix.PollFd{{Fd: int32(fd)}}
			unix.Poll(p, 0)
			if n != 0 {
				reset = os.NewSyscallError("read", syscall.Errno(n))
			} else if p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
				reset = os.NewSyscallError("read", syscall.ECONNRESET)
			}
			return reset != nil
		})
		return 0, errors.Join(err, reset)
	})
	return c.unlessClosed(err)
}

// SetTag does nothing. The tag is for the Watcher of package openssl.
func (c *conn) SetTag(int32) {}

// ready returns the tls.Conn. It fails the test if the handshake is not done.
func (c *conn) ready() *tls.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done {
		c.e.tb.Errorf("fakeengine: Read or Write before the handshake")
	}
	return c.tls
}

func (c *conn) unlessClosed(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.closed {
		return net.ErrClosed
	}
	return err
}

func (c *conn) PeerSubject() string {
	s := c.ready().ConnectionState()
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	return subject(s.PeerCertificates[0])
}

// subject returns the subject of a certificate in OpenSSL's one-line form, with the kinds of names
// that tests need.
func subject(c *x509.Certificate) string {
	var b strings.Builder
	for _, n := range c.Subject.Names {
		short := map[string]string{"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.10": "O",
			"2.5.4.11": "OU"}
		b.WriteString("/" + short[n.Type.String()] + "=")
		s, _ := n.Value.(string)
		b.WriteString(s)
	}
	return b.String()
}

func (c *conn) Version() string {
	return strings.Replace(tls.VersionName(c.ready().ConnectionState().Version),
		"TLS ", "TLSv", 1)
}

// Info has fewer facts than the Info of OpenSSL's engine.
func (c *conn) Info() (openssl.Info, error) {
	t := c.ready()
	if t == nil {
		return openssl.Info{}, openssl.ErrNoHandshake
	}
	st := t.ConnectionState()
	i := openssl.Info{Version: c.Version(), Cipher: tls.CipherSuiteName(st.CipherSuite),
		ALPN: st.NegotiatedProtocol, ServerName: st.ServerName,
		Verified: len(st.VerifiedChains) > 0}
	for _, cert := range st.PeerCertificates {
		i.Chain = append(i.Chain, cert.Raw)
	}
	return i, nil
}

func (c *conn) CloseContext(ctx context.Context) error { return c.close(ctx, true) }

// CutContext closes the connection without close_notify. First it waits until the peer's system has
// acknowledged all that was sent. Meanwhile it reads and discards what the peer sends. If received
// data were unread, close(2) would reset the connection, and so could lose data on its way to the
// peer.
func (c *conn) CutContext(ctx context.Context) error {
	c.mu.Lock()
	established := c.done && !c.closed
	c.mu.Unlock()
	if established && c.unacknowledged() && c.nc.CloseWrite() == nil {
		const look = time.Millisecond
		for ctx.Err() == nil && c.unacknowledged() {
			_ = c.nc.SetReadDeadline(time.Now().Add(look))
			_, err := io.Copy(io.Discard, c.nc)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				break // the peer has closed the connection
			}
		}
	}
	return c.close(ctx, false)
}

// unacknowledged says whether the peer's system has not yet acknowledged all that was sent
// (SIOCOUTQ, tcp(7)).
func (c *conn) unacknowledged() (yes bool) {
	raw, err := c.nc.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
			yes = err == nil && n > 0
		})
	}
	return yes && err == nil
}

func (c *conn) Abort() error { return c.close(context.Background(), false) }

func (c *conn) close(ctx context.Context, orderly bool) error {
	c.mu.Lock()
	twice := c.closed
	c.closed = true
	t, done := c.tls, c.done
	c.mu.Unlock()
	if twice {
		c.e.tb.Errorf("fakeengine: a connection was closed twice")
		return net.ErrClosed
	}
	c.e.count(&c.e.conns, -1)
	if done && orderly {
		_ = c.e.hook(ctx, Close)
		return t.Close()
	}
	return c.nc.Close()
}
