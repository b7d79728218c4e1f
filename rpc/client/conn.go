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

// Conn is a TLS connection as a net.Conn. Its bytes go over a data channel of its own (proto.md,
// section 2), so that a connection never waits for another one. The rules:
//
//   - Read gives io.EOF only after the peer's close_notify. Any other end is an error: an *Error of
//     the kind that tls.Read would have.
//   - Write returns when the data is on its way to tlsd. Flush waits until it has left for the
//     peer. An error that comes later is that of a later Write, Flush or Close.
//   - CloseWrite sends close_notify behind what was written. Reading goes on.
//   - Close sends what was written, and close_notify, and frees the handle. If a Write was cut
//     short, by its deadline or by the Close, and none has followed it, there is no close_notify:
//     the peer can tell.
//   - Deadlines are of this side: one that passes ends a Read or Write, and loses no data of a
//     Read. The timeouts of tlsd bound what tlsd sends to the peer.
//
// All methods may be called by many goroutines at once.
type Conn struct {
	c  *Client
	h  Handle
	ch *net.UnixConn

	closed atomic.Bool
	sent   atomic.Int64 // bytes that were put on the channel

	writeMu sync.Mutex // held by the Write that runs, which Close ends
	cut     bool       // the last Write that has sent something was cut short; guarded by writing

	mu       sync.Mutex // guards the rest
	shut     bool       // CloseWrite was called
	readErr  error      // why there is nothing more to read, once that is known
	writeErr error      // why nothing more can be written, once that is known
}

// askTimeout bounds the time in which tlsd says why a direction has ended, which it knows by then.
const statusTimeout = 10 * time.Second

// HandshakeConn is [Client.Handshake] for a connection whose bytes go over a data channel. The Conn
// has the handle from then on, and is to be closed instead of it.
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

// AcceptConn is [Client.Accept] for a connection whose bytes go over a data channel.
func (c *Client) AcceptConn(ctx context.Context, ctxHandle Handle, host string, port int) (*Conn, error) {
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

// withChannel makes a pair of sockets, has one end sent by a call, and returns the other one if the
// call succeeds.
func (c *Client) withChannel(method string, call func(theirs *os.File) error) (*net.UnixConn, error) {
	if _, ok := c.conn.(*net.UnixConn); !ok {
		return nil, newError(kind.Limit, nil, "a data channel needs a Unix socket to tlsd, not a %T", c.conn).forMethod(method)
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, newError(kind.Limit, err, "no pair of sockets for a data channel: %v", err).forMethod(method)
	}
	err = call(theirs)
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
	ours, theirs := os.NewFile(uintptr(fds[0]), "data channel"), os.NewFile(uintptr(fds[1]), "data channel of tlsd")
	conn, err := net.FileConn(ours)
	ours.Close() // conn has a duplicate
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// Handle is the connection's handle, for [Client.PeerCertSubject] and the like.
func (c *Conn) Handle() Handle { return c.h }

// Read waits for data, and gives what is there.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.ch.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	return 0, c.explain(err, &c.readErr)
}

// Write puts all of p on its way.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	shut := c.shut
	c.mu.Unlock()
	if shut {
		return 0, newError(kind.State, nil, "handle %d: CloseWrite was called before", c.h).forMethod("tls.Write")
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

// CloseWrite says that nothing more will be written: close_notify is sent behind what was. Reading
// goes on.
func (c *Conn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	return c.ch.CloseWrite()
}

// Close is CloseContext without an end.
func (c *Conn) Close() error { return c.CloseContext(context.Background()) }

// CloseContext ends Reads and Writes that wait, has tlsd send what was written, within its
// timeouts, and then close_notify, and frees the handle. The end of ctx ends the sending. An error
// is that of writing, if no other call has told it. Only the first call does something; later ones
// return net.ErrClosed.
func (c *Conn) CloseContext(ctx context.Context) error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.ch.SetDeadline(time.Unix(1, 0))
	c.writeMu.Lock()
	if c.cut {
		_ = c.ch.CloseRead() // with CloseWrite that is, for tlsd, as if this side were gone
		_ = c.ch.CloseWrite()
	}
	c.writeMu.Unlock()
	err := c.c.CloseConn(ctx, c.h)
	c.ch.Close()
	return err
}

// explain says why a Read or Write of the channel has failed. What ends a direction is noted at
// last, and given again by all that follow.
func (c *Conn) explain(err error, last *error) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	known := *last
	c.mu.Unlock()
	if known != nil {
		return known
	}
	why := c.queryStatus(last == &c.readErr, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if *last == nil {
		*last = why
	}
	return *last
}

// ask asks tlsd why a direction has ended.
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
	return newError(kind.Internal, err, "handle %d: its data channel has ended, but tlsd says that the direction is open: %v", c.h, err)
}

// SetDeadline sets the deadlines of Reads and of Writes.
func (c *Conn) SetDeadline(t time.Time) error { return c.unlessClosed(c.ch.SetDeadline, t) }

// SetReadDeadline sets the deadline of Reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.unlessClosed(c.ch.SetReadDeadline, t) }

// SetWriteDeadline sets the deadline of Writes: of how long they wait for tlsd to take the data.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.unlessClosed(c.ch.SetWriteDeadline, t) }

func (c *Conn) unlessClosed(set func(time.Time) error, t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}

// LocalAddr names the handle: the addresses of the TCP connection are tlsd's.
func (c *Conn) LocalAddr() net.Addr { return Addr(c.h) }

// RemoteAddr names the handle, as LocalAddr.
func (c *Conn) RemoteAddr() net.Addr { return Addr(c.h) }

// Addr is what a Conn gives as its address: its handle.
type Addr Handle

// Network is "tlsd".
func (Addr) Network() string { return "tlsd" }

// String names the handle.
func (a Addr) String() string { return fmt.Sprintf("handle %d", a) }
