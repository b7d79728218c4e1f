package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
)

// A Conn is a TLS connection as a net.Conn. Its bytes go over a data channel of its own (proto.md,
// section 2), so one Conn does not wait for another. The rules:
//
//   - Read returns io.EOF only after the peer's close_notify. For any other end it returns an
//     *Error, of the same kind as tls.Read.
//   - Write returns when the data is on its way to tlsd. Flush waits until the data has left for
//     the peer. If tlsd cannot send the data, a later Write, Flush or Close returns the error.
//   - CloseWrite sends close_notify after all that was written. Reading goes on.
//   - Close sends all that was written, sends close_notify, and frees the handle. If the last Write
//     was cut short, by its deadline or by Close, Close sends no close_notify. So the peer can see
//     that the data is not complete.
//   - Deadlines limit how long Read and Write wait for tlsd. A Read whose deadline passes loses no
//     data. tlsd's own timeouts limit how long tlsd waits for the peer.
//
// Many goroutines may call the methods at once.
type Conn struct {
	c  *Client
	h  Handle
	ch *net.UnixConn

	closed atomic.Bool
	sent   atomic.Int64 // bytes that were put on the channel

	// writeMu guards cut. It is locked while a Write runs. Close first ends a waiting Write by
	// a deadline, so Close does not wait long for writeMu.
	writeMu sync.Mutex
	cut     bool // the newest Write that sent bytes has not sent all of its data

	mu       sync.Mutex // guards the rest
	shut     bool       // CloseWrite was called
	readErr  error      // why nothing more can be read; nil if not known
	writeErr error      // why nothing more can be written; nil if not known
}

// statusTimeout limits the wait for tls.Status, which tlsd can answer at once.
const statusTimeout = 10 * time.Second

// HandshakeConn is [Client.Handshake], and gives the connection a data channel. The Conn owns the
// handle from then on. Close the Conn, and not the handle.
func (c *Client) HandshakeConn(ctx context.Context, h Handle) (*Conn, error) {
	ch, err := c.withChannel("tls.Handshake", func(theirs *os.File) error {
		_, err := c.exchange(ctx, "tls.Handshake", []any{h, 1}, theirs)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Conn{c: c, h: h, ch: ch}, nil
}

// AcceptConn is [Client.Accept], and gives the connection a data channel.
func (c *Client) AcceptConn(ctx context.Context, ctxHandle Handle, host string, port int) (
	*Conn, error) {
	const method = "tls.Accept"
	var h Handle
	ch, err := c.withChannel(method, func(theirs *os.File) error {
		value, err := c.exchange(ctx, method, []any{ctxHandle, host, port, 1}, theirs)
		if err != nil {
			return err
		}
		return decode(method, value, &h)
	})
	if err != nil {
		return nil, err
	}
	return &Conn{c: c, h: h, ch: ch}, nil
}

// withChannel makes a pair of sockets, and passes one end to the function send. This function must
// make a call of tlsd, send the end with the call, and return the call's error. If the call
// succeeds, withChannel returns the other end.
func (c *Client) withChannel(method string, send func(theirs *os.File) error) (
	*net.UnixConn, error) {
	if _, ok := c.conn.(*net.UnixConn); !ok {
		return nil, newError(kind.Limit, nil,
			"a data channel needs a Unix socket to tlsd, not a %T",
			c.conn).forMethod(method)
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, newError(kind.Limit, err, "no pair of sockets for a data channel: %v",
			err).forMethod(method)
	}
	err = send(theirs)
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// socketpair makes a connected pair of Unix stream sockets.
func socketpair() (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	ours := os.NewFile(uintptr(fds[0]), "data channel")
	theirs := os.NewFile(uintptr(fds[1]), "data channel of tlsd")
	conn, err := net.FileConn(ours)
	ours.Close() // conn has a duplicate
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// Handle is the connection's handle, for methods of [Client] such as [Client.PeerCertSubject].
func (c *Conn) Handle() Handle { return c.h }

// Read waits for data, and returns what is there.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.ch.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	return 0, c.explain(err, &c.readErr)
}

// Write puts all of p on the channel, or fails.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	shut := c.shut
	c.mu.Unlock()
	if shut {
		return 0, newError(kind.State, nil, "handle %d: CloseWrite was called before",
			c.h).forMethod("tls.Write")
	}
	c.writeMu.Lock()
	n, err := c.ch.Write(p)
	c.sent.Add(int64(n))
	if n > 0 {
		c.cut = n < len(p)
	}
	c.writeMu.Unlock()
	if err != nil {
		return n, c.explain(err, &c.writeErr)
	}
	return n, nil
}

// Flush waits until all that was written before has left for the peer.
func (c *Conn) Flush(ctx context.Context) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.c.Flush(ctx, c.h, c.sent.Load())
}

// CloseWrite ends writing: tlsd sends close_notify after all that was written. Reading goes on.
func (c *Conn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	return c.ch.CloseWrite()
}

// Close is CloseContext with a context that never ends.
func (c *Conn) Close() error { return c.CloseContext(context.Background()) }

// CloseContext ends Reads and Writes that wait. Then tlsd sends all that was written, within its
// timeouts, and frees the handle. tlsd also sends close_notify, unless the last Write was cut
// short. If ctx ends, tlsd stops sending. CloseContext returns an error of writing that no other
// call has returned yet. Later calls of Close and CloseContext only return net.ErrClosed.
func (c *Conn) CloseContext(ctx context.Context) error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.ch.SetDeadline(time.Unix(1, 0))
	c.writeMu.Lock()
	if c.cut {
		// Shut down both directions, so that tlsd finds the channel closed before
		// tls.Close comes. tlsd then sends no close_notify.
		_ = c.ch.CloseRead()
		_ = c.ch.CloseWrite()
	}
	c.writeMu.Unlock()
	err := c.c.CloseConn(ctx, c.h)
	c.ch.Close()
	return err
}

// explain returns why a Read or Write of the channel has failed. If this side has not closed the
// Conn, and no deadline has passed, explain asks tlsd for the reason. explain stores the reason in
// *reason, which is c.readErr or c.writeErr. Later calls return the stored reason.
func (c *Conn) explain(err error, reason *error) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	known := *reason
	c.mu.Unlock()
	if known != nil {
		return known
	}
	why := c.queryStatus(reason == &c.readErr, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if *reason == nil {
		*reason = why
	}
	return *reason
}

// queryStatus asks tlsd why a direction has ended.
func (c *Conn) queryStatus(reading bool, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	s, failed := c.c.Status(ctx, c.h)
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case failed != nil:
		return failed
	case reading && s.ReadError != nil:
		return s.ReadError
	case reading && s.Read == "end":
		return io.EOF
	case !reading && s.WriteError != nil:
		return s.WriteError
	}
	return newError(kind.Internal, err,
		"handle %d: its data channel has ended, "+
			"but tlsd says that the direction is open: %v", c.h, err)
}

// SetDeadline sets the deadlines of Reads and of Writes.
func (c *Conn) SetDeadline(t time.Time) error { return c.unlessClosed(c.ch.SetDeadline, t) }

// SetReadDeadline sets the deadline of Reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.unlessClosed(c.ch.SetReadDeadline, t) }

// SetWriteDeadline sets the deadline of Writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.unlessClosed(c.ch.SetWriteDeadline, t)
}

func (c *Conn) unlessClosed(set func(time.Time) error, t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}

// LocalAddr names the handle, because the TCP connection belongs to tlsd.
func (c *Conn) LocalAddr() net.Addr { return Addr(c.h) }

// RemoteAddr names the handle, like LocalAddr.
func (c *Conn) RemoteAddr() net.Addr { return Addr(c.h) }

// An Addr is the address of a Conn: its handle.
type Addr Handle

// Network is "tlsd".
func (Addr) Network() string { return "tlsd" }

// String names the handle.
func (a Addr) String() string { return fmt.Sprintf("handle %d", a) }
