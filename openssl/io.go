package openssl

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// How an operation waits. The socket is Go's: non-blocking and known to the netpoller. The SSL
// reads it by its file descriptor (SSL_set_rfd) and writes to memory (out.go). So these rules hold:
//
//   - Every SSL call that may read, and every write(2), is made inside a function that RawConn.Read
//     or RawConn.Write calls. Meanwhile these keep the descriptor open. Outside of them its number
//     may already belong to another connection.
//   - Such a function returns false, which means to wait, in one case only: its own last call has
//     met EAGAIN in the direction that the RawConn waits for. That is SSL_read in Read, and
//     write(2) in Write. The netpoller is edge-triggered, and forgets old readiness when the
//     RawConn call begins. In any other case the wake-up would never come.
//   - errno shows whether SSL_read has met EAGAIN. If the library wants to wait without EAGAIN, the
//     call is made again, and after mostTurns calls the connection fails.
//   - Conn.mu is held for one stay in the library and the sends around it, and never during a wait.
//
// In the direction of writing only the holder of Conn.writing waits. In the direction of reading
// the holder of Conn.reading waits. That is usually a Read. It can also be a Handshake, or a Write
// in the middle of a message of the peer's handshake layer. They take turns.
//
// A context ends a wait by a deadline in the past, set on the direction in which the operation
// waits. A connection that fails ends the waits of both directions in the same way.

// A direction is the readiness that an operation waits for.
type direction int

const (
	readable direction = iota
	writable
	none    // no wait is needed
	nothing // the library wants to wait, and no event would end the wait
)

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

func (c *Conn) setDeadline(d direction, t time.Time) {
	// It fails only if the socket is closed, and that ends the wait too.
	if d == readable {
		_ = c.nc.SetReadDeadline(t)
	} else {
		_ = c.nc.SetWriteDeadline(t)
	}
}

// A sem is a mutex whose wait ends with a context.
type sem struct {
	held    chan struct{}
	waiting *atomic.Int32 // the number of waiting goroutines
}

func newSem() sem { return sem{make(chan struct{}, 1), new(atomic.Int32)} }

// lock fails with the error of ctx, or with net.ErrClosed after done is closed.
func (s sem) lock(ctx context.Context, done <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.held <- struct{}{}:
	default:
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
		select {
		case s.held <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return net.ErrClosed
		}
	}
	select {
	case <-done:
		s.unlock()
		return net.ErrClosed
	default:
		return nil
	}
}

func (s sem) unlock() { <-s.held }

// wait calls try, in the RawConn method that its direction needs, until the
// operation is finished, its context ends, or the Conn is closed.
func (o *op) wait() error {
	for !o.finished {
		if err := o.waitOnce(); err != nil {
			return err
		}
	}
	return o.err
}

// waitOnce is one call of a RawConn method.
func (o *op) waitOnce() (err error) {
	c, d := o.c, o.dir
	o.parked = false
	select {
	case <-c.done:
		return net.ErrClosed
	default:
	}
	if d == readable {
		if err := c.reading.lock(o.ctx, c.done); err != nil {
			return err
		}
		defer c.reading.unlock()
		err = c.raw.Read(o.tryFn)
	} else {
		err = c.raw.Write(o.tryFn)
	}
	o.forget()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// The deadline has ended this wait, so it can be undone, whoever has set it. Close
		// sets its deadline after it closes done, and fail after it sets the error. Both
		// are checked before the next wait.
		c.setDeadline(d, time.Time{})
		return o.ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

// mostTurns limits how often in a row a call is made again because the library wants to wait
// without EAGAIN. A correct library does so after each message of the handshake layer that empties
// its buffer. A peer may send thousands of such messages in a row.
const mostTurns = 1 << 16

// try is the function that RawConn calls: at once, and after each wait.
func (o *op) try(fd uintptr) bool {
	for {
		want := o.once(fd)
		switch {
		case o.finished:
			return true
		case want == none:
			if o.dir == readable && o.kind == opWrite {
				o.dir = writable // and the return gives c.reading back
				return true
			}
		case o.turns > mostTurns:
			o.giveUp()
			return true
		case want == nothing:
			o.turns++
			if o.interrupted() { // nothing else would notice, because there is no wait
				return true
			}
		case want != o.dir:
			o.turns++
			o.dir = want
			return true
		case want == readable && o.parked && o.c.reading.waiting.Load() > 0:
			return true // another operation has the turn; this one queues behind it
		default:
			o.parked, o.turns = true, 0
			o.watch()
			return false
		}
	}
}

// interrupted ends an operation whose context has ended, or whose Conn is being closed.
func (o *op) interrupted() bool {
	select {
	case <-o.c.done:
		o.end(net.ErrClosed)
	case <-o.ctx.Done():
		o.end(o.ctx.Err())
	default:
		return false
	}
	return true
}

// watch makes the end of the context end the next wait.
func (o *op) watch() {
	if o.unwatch != nil || o.ctx.Done() == nil {
		return
	}
	c, d := o.c, o.dir
	over := make(chan struct{})
	stop := context.AfterFunc(o.ctx, func() {
		c.setDeadline(d, aLongTimeAgo)
		close(over)
	})
	o.unwatch = func() {
		if !stop() {
			// The function runs, or has run. Its deadline must not outlive this wait.
			<-over
			c.setDeadline(d, time.Time{})
		}
	}
}

// forget ends watch.
func (o *op) forget() {
	if o.unwatch != nil {
		o.unwatch()
		o.unwatch = nil
	}
}

// poll returns the ready events: those of wanted, POLLERR and POLLHUP.
func poll(fd uintptr, wanted int16) int16 {
	for {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: wanted}}
		n, err := unix.Poll(fds[:], 0)
		switch {
		case err == unix.EINTR:
		case err != nil || n == 0:
			return 0
		default:
			return fds[0].Revents
		}
	}
}

// giveUp ends an operation if the library wants to wait although there is nothing to wait for.
func (o *op) giveUp() {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.fail(o.problem("OpenSSL wants to wait for a socket that is ready"))
	}
	o.end(c.readErr)
}
