package openssl

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// closeBound is the longest that Close waits for the network.
const closeBound = time.Second

// Close is CloseContext with a bound of a second.
func (c *Conn) Close() error {
	ctx, stop := context.WithTimeout(context.Background(), closeBound)
	defer stop()
	return c.CloseContext(ctx)
}

// CloseContext ends the waiting Reads, Writes and Handshakes, which return net.ErrClosed, frees the
// SSL when the last of them has left, and closes the socket. It is idempotent; every call returns when all that is done.
//
// After a handshake it sends close_notify first, unless that is done, the connection has failed, or its outgoing stream is
// broken. It never waits for the peer's. But it sees to it that what was written arrives: the system
// discards what it has not yet sent when a socket is closed while incoming data is unread, or when such
// data comes later (RFC 1122 section 4.2.2.13), and TLS 1.3 servers send session tickets
// that nobody reads. So it ends its direction, throws incoming data away, and waits until the peer's
// system has acknowledged everything, a round trip as a rule, or until ctx is done. If it is done already, what
// can be sent at once is sent. The end of ctx is no error.
func (c *Conn) CloseContext(ctx context.Context) error {
	var err error
	c.closer.Do(func() { err = c.close(ctx, true) })
	return err
}

// Abort is CloseContext without a word to the peer, and without any wait: the peer
// learns that the connection was cut, and may lose what it has not yet got.
func (c *Conn) Abort() error {
	var err error
	c.closer.Do(func() { err = c.close(context.Background(), false) })
	return err
}

func (c *Conn) close(ctx context.Context, orderly bool) error {
	c.lifeMu.Lock()
	c.closed = true
	busy := c.users > 0
	if busy {
		c.idle = make(chan struct{})
	}
	c.lifeMu.Unlock()
	close(c.done)
	if busy {
		// Those that wait for the socket wake up, and see done.
		_ = c.nc.SetDeadline(aLongTimeAgo)
		<-c.idle
	}

	_ = c.nc.SetDeadline(time.Time{}) // an error comes again from Write
	sent := orderly && c.established.Load() && c.lastWords(ctx)
	c.free()
	if sent && c.nc.CloseWrite() == nil { // an error says that the connection is gone already
		c.flush(ctx)
	}
	return c.nc.Close()
}

// lastWords sends what is there to be sent, and close_notify behind it unless that is done, and tells whether everything has left. Of a connection that has
// failed it sends what the system takes at once: an alert.
func (c *Conn) lastWords(ctx context.Context) (sent bool) {
	c.mu.Lock()
	why := c.writeErr
	c.mu.Unlock()
	switch why {
	case nil:
		return c.closeNotify(ctx)
	case ErrShut:
		return true
	}
	_ = c.raw.Control(func(fd uintptr) { // nothing is lost that was promised
		c.mu.Lock()
		defer c.mu.Unlock()
		c.push(fd)
	})
	return false
}

// closeNotify sends the alert and tells whether it has left.
func (c *Conn) closeNotify(ctx context.Context) (sent bool) {
	o := c.op()
	defer o.giveBack()
	o.prepare(ctx, opShutdown, nil)
	try := func(fd uintptr) bool {
		// A library that wants to read first is not waited for.
		for !o.finished {
			switch o.once(fd) {
			case none:
			case writable:
				o.watch()
				return false
			default:
				return true
			}
		}
		return true
	}
	err := c.raw.Write(try)
	o.forget()
	return err == nil && o.finished && o.err == nil
}

// trash is what nobody reads.
var trash = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// flush reads and discards until the peer's system has everything, or the peer is gone.
func (c *Conn) flush(ctx context.Context) {
	buf := trash.Get().(*[16 << 10]byte)
	defer trash.Put(buf)
	over := false
	try := func(fd uintptr) bool {
		for range 64 { // a peer that sends without end must not keep us here
			switch n, err := syscall.Read(int(fd), buf[:]); {
			case n > 0 || err == syscall.EINTR:
			case err == syscall.EAGAIN:
				over = unacknowledged(fd) == 0
				return over // false: wait for more to discard
			default: // the end, or an error
				over = true
				return true
			}
		}
		over = unacknowledged(fd) == 0
		return true
	}
	// There is no event for "acknowledged": look again and again.
	for wait := time.Millisecond; !over && ctx.Err() == nil; wait = min(2*wait, 20*time.Millisecond) {
		_ = c.nc.SetReadDeadline(time.Now().Add(wait)) // an error comes again from Read
		if err := c.raw.Read(try); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
