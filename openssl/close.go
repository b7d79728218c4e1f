package openssl

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// closeBound limits how long Close waits for the network.
const closeBound = time.Second

// Close is CloseContext with a limit of one second.
func (c *Conn) Close() error {
	ctx, stop := context.WithTimeout(context.Background(), closeBound)
	defer stop()
	return c.CloseContext(ctx)
}

// CloseContext ends the waiting Reads, Writes and Handshakes, which return net.ErrClosed. When the
// last of them has returned, it frees the SSL and closes the socket. Only the first call does this.
// A later call waits until the first has ended, and returns nil.
//
// After a handshake CloseContext sends close_notify before it closes the socket. It sends none in
// four cases: CloseWrite has sent it; the connection has failed; its outgoing stream is broken; the
// peer has sent only a part of a message of the handshake layer. CloseContext never waits for the
// peer's close_notify.
//
// After close_notify CloseContext makes sure that written data arrives. A system that closes a
// socket may discard the outgoing data that it has not yet sent. It does so if received data is
// unread, or if more data is received after the close (RFC 1122 section 4.2.2.13). Unread data is
// usual: TLS 1.3 servers send session tickets that no call reads.
//
// So CloseContext ends the outgoing direction of the socket and discards incoming data. It does so
// until the peer's system has acknowledged everything, usually for one round trip, or until ctx is
// done. If ctx is done already, CloseContext sends only what the system takes at once. A ctx that
// is done is no error.
func (c *Conn) CloseContext(ctx context.Context) error {
	return c.closeOnce(ctx, orderly)
}

// CutContext is CloseContext without close_notify. The peer gets all written data, and then sees a
// cut connection.
func (c *Conn) CutContext(ctx context.Context) error {
	return c.closeOnce(ctx, cut)
}

// Abort is CutContext, but does not wait for the network. Written data may not arrive.
func (c *Conn) Abort() error {
	return c.closeOnce(context.Background(), abort)
}

// An ending is how a connection is closed.
type ending int

const (
	orderly ending = iota // with close_notify, and written data arrives
	cut                   // without close_notify, and written data arrives
	abort                 // without close_notify, at once
)

func (c *Conn) closeOnce(ctx context.Context, how ending) (err error) {
	c.closer.Do(func() { err = c.close(ctx, how) })
	return err
}

func (c *Conn) close(ctx context.Context, how ending) error {
	c.lifeMu.Lock()
	c.closed = true
	busy := c.users > 0
	if busy {
		c.idle = make(chan struct{})
	}
	c.lifeMu.Unlock()
	close(c.done)
	if busy {
		// The operations that wait for the socket wake up, and see that c.done is closed.
		_ = c.nc.SetDeadline(aLongTimeAgo)
		<-c.idle
	}

	_ = c.nc.SetDeadline(time.Time{}) // if this fails, so does the next use of the socket
	sent := false
	if how != abort && c.established.Load() {
		// Written data must arrive, even if close_notify is not sent.
		sent = how == orderly && c.lastWords(ctx) || !c.writeFailed() && c.inFlight()
	}
	c.free()
	if sent && c.nc.CloseWrite() == nil { // an error means that the connection is gone already
		c.flush(ctx)
	}
	return c.nc.Close()
}

// lastWords sends the unsent data, and then close_notify. It returns true if both are sent. If
// CloseWrite has sent them already, it only returns true. If the connection has failed, lastWords
// sends only the bytes that the system takes at once, which may be an alert, and returns false.
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
	// If Control fails, only the alert may be lost. CloseContext does not promise to send it.
	_ = c.raw.Control(func(fd uintptr) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.push(fd)
	})
	return false
}

// writeFailed says whether written data cannot arrive any more.
func (c *Conn) writeFailed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeErr != nil && c.writeErr != ErrShut
}

// inFlight says whether bytes are on their way: the peer's system has not acknowledged them. If
// there are none, closing the socket at once loses no outgoing bytes. It may lose incoming bytes
// that are unread. Then the system resets the connection, so the peer learns of the loss.
func (c *Conn) inFlight() (yes bool) {
	err := c.raw.Control(func(fd uintptr) { yes = unacknowledged(fd) > 0 })
	return yes && err == nil
}

// closeNotify sends the unsent data and the alert close_notify. It returns true if both are sent.
func (c *Conn) closeNotify(ctx context.Context) (sent bool) {
	o := c.op()
	defer o.giveBack()
	o.prepare(ctx, opShutdown, nil)
	try := func(fd uintptr) bool {
		// If OpenSSL wants to read first, closeNotify gives up.
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

// trash has buffers for data that nobody reads.
var trash = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// flush reads and discards data until the peer's system has acknowledged everything, the peer is
// gone, or ctx has ended.
func (c *Conn) flush(ctx context.Context) {
	over := false
	try := func(fd uintptr) bool {
		buf := trash.Get().(*[16 << 10]byte) // given back before each wait
		defer trash.Put(buf)
		for range 64 { // a peer that sends without end must not hold us up here
			switch n, err := syscall.Read(int(fd), buf[:]); {
			case n > 0 || err == syscall.EINTR:
			case err == syscall.EAGAIN:
				over = unacknowledged(fd) == 0
				return over // false: wait until there is more to discard
			default: // the end, or an error
				over = true
				return true
			}
		}
		over = unacknowledged(fd) == 0
		return true
	}
	// No event says that everything is acknowledged, so flush asks again and again.
	const longest = 20 * time.Millisecond
	for wait := time.Millisecond; !over && ctx.Err() == nil; wait = min(2*wait, longest) {
		_ = c.nc.SetReadDeadline(time.Now().Add(wait)) // if this fails, so does raw.Read
		if err := c.raw.Read(try); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
