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

// How an operation waits. The socket is Go's: it is non-blocking, and the netpoller watches it. The
// SSL reads it by its file descriptor (SSL_set_rfd) and writes to memory (out.go). So these rules
// hold:
//
//   - The methods Read, Write and Control of RawConn call a function. Every SSL call that may read,
//     and every write(2), is made inside such a function. While the function runs, the descriptor
//     stays open. At other times the descriptor's number may already belong to another connection.
//   - If the function returns false to RawConn.Read, RawConn.Read waits until the socket is
//     readable. The function may return false in two cases only: its last read from the socket
//     has met EAGAIN; or the operation is a WaitReset, and poll(2) reports no reset yet.
//   - If the function returns false to RawConn.Write, RawConn.Write waits until the socket is
//     writable. The function may return false in one case only: its last write(2) has met EAGAIN.
//   - In any other case the wait might never end: the netpoller is edge-triggered, and forgets old
//     readiness when RawConn.Read or RawConn.Write begins.
//   - The variable errno shows whether an SSL call has met EAGAIN. If OpenSSL asks for a wait but
//     has not met EAGAIN, the operation makes the SSL call again at once. mostTurns limits this.
//   - An operation holds Conn.mu for one stay in the library, and for the sends before and after
//     the stay. It never holds Conn.mu during a wait.
//
// Only the operation that has locked Conn.writing waits until the socket is writable. Only the
// operation that has locked Conn.reading waits until the socket is readable. A Read, a WaitReset
// and a Handshake lock Conn.reading. A Write or CloseWrite locks Conn.reading only while OpenSSL
// must first read the rest of a message of the handshake layer. All operations that lock
// Conn.reading take turns.
//
// A deadline in the past ends a wait. These methods set such a deadline:
//
//   - When an operation's context ends, op.watch sets it for the direction of the wait.
//   - When the connection fails, Conn.fail sets it for both directions.
//   - When operations are running, Conn.close sets it for both directions.
//   - To wake a Read or WaitReset, Conn.wakeReader sets it for reading.
//
// Such a deadline may stay behind. Then the next operation that waits removes it, and tries again
// (op.waitOnce).

// A direction is the readiness that an operation waits for.
type direction int

const (
	readable direction = iota
	writable
	none    // the operation needs no wait
	nothing // OpenSSL asks for a wait that no event would end: make the SSL call again at once
)

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

func (c *Conn) setDeadline(d direction, t time.Time) {
	// An error means that the socket is closed, which ends the wait too.
	if d == readable {
		_ = c.nc.SetReadDeadline(t)
	} else {
		_ = c.nc.SetWriteDeadline(t)
	}
}

// A sem is a mutex. A context can end the wait for it.
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

// wait does the operation. It calls RawConn.Read or RawConn.Write, as o.dir demands, until the
// operation is finished, its context ends, or the Conn is closed.
func (o *op) wait() error {
	for !o.finished {
		if err := o.waitOnce(); err != nil {
			return err
		}
	}
	return o.err
}

// waitOnce makes one call of RawConn.Read or RawConn.Write.
func (o *op) waitOnce() (err error) {
	c, d := o.c, o.dir
	o.parked = false
	select {
	case <-c.done:
		return net.ErrClosed
	default:
	}
	if d == readable {
		if err := o.lockReading(); err != nil {
			return err
		}
		defer c.reading.unlock()
		err = c.raw.Read(o.tryFn)
	} else {
		err = c.raw.Write(o.tryFn)
	}
	o.forget()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// The deadline has ended this wait, so waitOnce removes it. After c.close or c.fail
		// no later wait begins, even without the deadline: waitOnce looks at c.done first,
		// and the method once looks at the error that c.fail has stored.
		c.setDeadline(d, time.Time{})
		return o.ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

// lockReading locks c.reading.
//
// If a message of the handshake layer has come in part, a Write or CloseWrite must first read the
// rest. For this it calls lockReading. But a Read may have locked c.reading, and may read the rest
// itself. The Read then waits for data, perhaps for ever, and the Write would wait for the Read. So
// a Read that needs more data unlocks c.reading, and queues behind the Write. A WaitReset does the
// same (givesWay). A Read or WaitReset that waits already has not seen the Write. So lockReading
// wakes it.
func (o *op) lockReading() error {
	c := o.c
	if o.kind == opWrite || o.kind == opShutdown {
		c.wanting.Add(1)
		defer c.wanting.Add(-1)
		c.wakeReader()
	}
	return c.reading.lock(o.ctx, c.done)
}

// mostTurns limits op.turns: how often in a row an operation tries again at once, without a wait.
// The limit is high, because a peer may send thousands of messages of the handshake layer in a row.
// After each of them OpenSSL may rightly ask for a wait without EAGAIN (sslErrorWantNothing).
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
				o.dir = writable // waitOnce unlocks c.reading after this return
				return true
			}
		case o.turns > mostTurns:
			o.giveUp()
			return true
		case want == nothing:
			o.turns++
			if o.interrupted() { // no wait follows, so the context is checked here
				return true
			}
		case want != o.dir:
			o.turns++
			o.dir = want
			return true
		case want == readable && o.parked && o.c.reading.waiting.Load() > 0:
			return true // o has waited once; now the next operation gets c.reading
		case want == readable && o.givesWay():
			return true
		default:
			o.parked, o.turns = true, 0
			o.watch()
			return false
		}
	}
}

// givesWay says whether o, which needs more data, must let a Write or CloseWrite go first. The
// Write or CloseWrite waits for the rest of a message of the handshake layer. It would wait in vain
// in two cases. If o is a Read that is not in the middle of a message, the rest has been read. If o
// is a WaitReset, the stream has ended.
func (o *op) givesWay() bool {
	return o.c.wanting.Load() > 0 && (o.kind == opReset || o.kind == opRead && !o.inMessage)
}

// interrupted looks whether the operation's context has ended, or its Conn is being closed. If so,
// it ends the operation and returns true.
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

// watch makes sure that the end of the context ends the next wait.
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
			// The function above runs, or has run. Wait for it, and remove its
			// deadline, which must not end a later wait.
			<-over
			c.setDeadline(d, time.Time{})
		}
	}
}

// wakeReader makes a Read or WaitReset that waits for the socket try again. In the middle of a
// message of the handshake layer, SSL_write and SSL_do_handshake read the rest of the message, and
// maybe data behind it. Then OpenSSL has the data, and the socket may have none. No event would end
// the wait of a Read, because epoll(7) reports no event for a socket that has no data any more.
func (c *Conn) wakeReader() {
	if len(c.reading.held) > 0 {
		c.setDeadline(readable, aLongTimeAgo) // waitOnce removes it
	}
}

// forget removes what watch has set up.
func (o *op) forget() {
	if o.unwatch != nil {
		o.unwatch()
		o.unwatch = nil
	}
}

// poll returns the events that poll(2) reports for fd. Besides the wanted events, these may be
// POLLERR and POLLHUP. The function does not wait.
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

// giveUp makes the connection fail, and ends the operation. It is called if o.turns is over the
// limit.
func (o *op) giveUp() {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.fail(o.problem("OpenSSL wants to wait for a socket that is ready"))
	}
	o.end(c.readErr)
}
