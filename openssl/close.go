package openssl

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// closeBound is the longest that Close waits for the network.
const closeBound = time.Second

// Close ends the waiting Reads, Writes and Handshakes, which return net.ErrClosed, frees the
// SSL when the last of them has left, and closes the socket. It is idempotent; every call returns when all that is done.
//
// After a handshake it sends close_notify first, unless the connection has failed or its outgoing stream is
// broken. It never waits for the peer's. But it sees to it that what was written arrives: the system
// discards what it has not yet sent when a socket is closed while incoming data is unread, or when such
// data comes later (RFC 1122 section 4.2.2.13), and TLS 1.3 servers send session tickets
// that nobody reads. So Close ends its direction, throws incoming data away, and waits until the peer's
// system has acknowledged everything: a round trip as a rule, and in all not more than a second.
func (c *Conn) Close() error {
	var err error
	c.closer.Do(func() { err = c.close(true) })
	return err
}

// Abort is Close without a word to the peer, and without any wait: the peer
// learns that the connection was cut, and may lose what it has not yet got.
func (c *Conn) Abort() error {
	var err error
	c.closer.Do(func() { err = c.close(false) })
	return err
}

func (c *Conn) close(orderly bool) error {
	c.lifeMu.Lock()
	c.closed = true
	busy := c.users > 0
	c.lifeMu.Unlock()
	close(c.done)
	if busy {
		// Those that wait for the socket wake up, and see done.
		_ = c.nc.SetDeadline(aLongTimeAgo)
		<-c.idle
	}

	until := time.Now().Add(closeBound)
	c.mu.Lock()
	// SSL_shutdown must not be called after a fatal error (SSL_shutdown(3)).
	whole := c.established.Load() && c.fatal == nil && !c.writeBroken
	c.mu.Unlock()
	sent := orderly && whole && c.closeNotify(until)
	c.free()
	if sent && c.nc.CloseWrite() == nil { // an error says that the connection is gone already
		c.flush(until)
	}
	return c.nc.Close()
}

// closeNotify sends the alert and tells whether it has left.
func (c *Conn) closeNotify(until time.Time) (sent bool) {
	_ = c.nc.SetDeadline(until) // an error comes again from Write
	o := &c.wr
	o.prepare(context.Background(), opShutdown, nil)
	err := c.raw.Write(func(uintptr) bool {
		want, idle := o.once()
		return !idle || want != writable
	})
	return err == nil && o.finished && o.err == nil
}

// flush reads and discards until the peer's system has everything, or the peer is gone.
func (c *Conn) flush(until time.Time) {
	buf := make([]byte, 16<<10)
	over := false
	try := func(fd uintptr) bool {
		for range 64 { // a peer that sends without end must not keep us here
			switch n, err := syscall.Read(int(fd), buf); {
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
	for wait := time.Millisecond; !over; wait = min(2*wait, 20*time.Millisecond) {
		now := time.Now()
		if now.After(until) {
			return
		}
		_ = c.nc.SetReadDeadline(now.Add(wait)) // an error comes again from Read
		if err := c.raw.Read(try); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
