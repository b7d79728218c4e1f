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

// How an operation waits. The socket is Go's: non-blocking and known to the netpoller. The SSL reads
// it by its file descriptor (SSL_set_rfd) and writes to memory (out.go), so these rules hold:
//
//   - Every SSL call that may read, and every write(2), is made inside a function given to
//     RawConn.Read or RawConn.Write. These keep the descriptor open meanwhile; outside of them its
//     number may already belong to another connection.
//   - Such a function returns false, which is to wait, only if what it has just done has met EAGAIN in the direction that
//     the RawConn waits for: SSL_read in Read, write(2) in Write. The netpoller is edge-triggered and forgets old readiness when
//     the RawConn call begins, so that in any other case the wake-up would never come.
//   - Whether SSL_read has met EAGAIN is seen by errno. A library that wants to wait without having met it
//     is asked again, and given up in the end.
//   - Conn.mu is held for one stay in the library and the sends around it, and never while waiting.
//
// In the direction of writing only the holder of Conn.writing waits. In that of reading waits the holder of Conn.reading: a
// Read as a rule, a Handshake, and a Write that comes in the middle of a message of the peer's handshake layer. They
// take turns.
//
// A context ends a wait by a deadline in the past, set on the direction in which the operation waits. So
// does a connection that fails, for both directions.

// A direction is what an operation waits for.
type direction int

const (
	readable direction = iota
	writable
	none    // it need not wait
	nothing // it wants to wait, and there is nothing that could come
)

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

func (c *Conn) setDeadline(d direction, t time.Time) {
	// It fails only if the socket is closed, which then ends the wait as well.
	if d == readable {
		_ = c.nc.SetReadDeadline(t)
	} else {
		_ = c.nc.SetWriteDeadline(t)
	}
}

// A sem is a mutex that can be waited for with a context.
type sem struct {
	held    chan struct{}
	waiting *atomic.Int32 // those that wait for it
}

func newSem() sem { return sem{make(chan struct{}, 1), new(atomic.Int32)} }

// lock fails with the error of ctx, or with net.ErrClosed once done is closed.
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
		// Whoever has set it, it is over. Close's own is safe to undo: it comes after done, which is looked
		// at before the next wait; that of a failure comes after the error, which is looked at, too.
		c.setDeadline(d, time.Time{})
		return o.ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

// mostTurns bounds how often the library is asked again when it wants to wait without a need. What it wants may have come
// just now, a few times in a row.
const mostTurns = 100

// try is the function that RawConn calls: at once, and after each wait.
func (o *op) try(fd uintptr) bool {
	for {
		want := o.once(fd)
		switch {
		case o.finished:
			return true
		case want == none:
			if o.dir == readable && o.kind == opWrite {
				o.dir = writable // it was the turn of a Read
				return true
			}
		case o.turns > mostTurns:
			o.giveUp()
			return true
		case want == nothing:
			o.turns++
		case want != o.dir:
			o.turns++
			o.dir = want
			return true
		case want == readable && o.parked && o.c.reading.waiting.Load() > 0:
			return true // it is the other's turn; we line up behind it
		default:
			o.parked, o.turns = true, 0
			o.watch()
			return false
		}
	}
}

// watch makes the end of the context end the wait that is about to begin.
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
		if !stop() { // It runs, or has run. It must not meet the next operation, nor Close.
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

// poll gives what is ready of what is asked for; POLLERR and POLLHUP always are.
func poll(fd uintptr, events int16) int16 {
	for {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
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

// giveUp ends an operation for which the library wants to wait, although there is nothing to wait for.
func (o *op) giveUp() {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.fail(o.problem("OpenSSL wants to wait for a socket that is ready"))
	}
	o.end(c.readErr)
}
