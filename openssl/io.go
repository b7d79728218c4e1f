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
//   - Every SSL call that may read, and every write(2), is made inside a function that
//     RawConn.Read, RawConn.Write or RawConn.Control calls. While this function runs, the
//     descriptor stays open. At other times the descriptor's number may already belong to another
//     connection.
//   - If such a function returns false, RawConn waits. The function may return false in one case
//     only: its most recent call has met EAGAIN in the direction in which RawConn waits. For
//     RawConn.Read that call is an SSL call that reads, and for RawConn.Write it is write(2). In
//     any other case the wake-up might never come: the netpoller is edge-triggered, and forgets old
//     readiness when RawConn.Read or RawConn.Write begins. (A WaitReset makes no SSL call. It waits
//     if poll(2) reports no reset yet.)
//   - errno shows whether an SSL call has met EAGAIN. If OpenSSL asks for a wait without EAGAIN,
//     the SSL call is made again. After mostTurns such calls the connection fails.
//   - Conn.mu is held for one stay in the library and the sends around it, and never during a wait.
//
// Only the operation that has locked Conn.writing waits until the socket is writable. Only the
// operation that has locked Conn.reading waits until the socket is readable. A Read, a WaitReset
// and a Handshake lock Conn.reading. A Write or CloseWrite locks it only if it must first read the
// rest of a handshake message. These operations take turns.
//
// If a context ends, the method watch sets a deadline in the past for the direction in which the
// operation waits. If a connection fails, the method fail sets such a deadline for both directions.
// The method wakeReader sets such a deadline for a Read or WaitReset. A deadline may stay behind.
// Then the next operation removes it and tries again (waitOnce).

// A direction is the readiness that an operation waits for.
type direction int

const (
	readable direction = iota
	writable
	none    // no wait is needed
	nothing // OpenSSL asks for a wait, but no event would end it: call again
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
		// The deadline has done its work, so waitOnce removes it. Even if Close or the
		// method fail has set it, nothing is lost: Close has closed c.done before, and fail
		// has set the error. Both are checked before the next wait.
		c.setDeadline(d, time.Time{})
		return o.ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

// lockReading locks c.reading. A Write or CloseWrite waits for data only until a message of the
// handshake layer is complete. If a Read reads the last part of the message, no event ends the wait
// of the Write. So the Read, or a WaitReset after it, gives way to the Write (see try). If a Read
// or WaitReset waits for the socket, it may not know of the Write yet, so lockReading wakes it.
func (o *op) lockReading() error {
	c := o.c
	if o.kind == opWrite || o.kind == opShutdown {
		c.wanting.Add(1)
		defer c.wanting.Add(-1)
		c.wakeReader()
	}
	return c.reading.lock(o.ctx, c.done)
}

// mostTurns limits how often in a row an operation repeats its call because OpenSSL asks for a wait
// without EAGAIN. OpenSSL may rightly do so after each message of the handshake layer (see
// sslErrorWantNothing), and a peer may send thousands of these messages in a row.
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
			if o.interrupted() { // check here, because no wait notices it
				return true
			}
		case want != o.dir:
			o.turns++
			o.dir = want
			return true
		case want == readable && o.parked && o.c.reading.waiting.Load() > 0:
			return true // o had its turn; it queues behind the operation that waits
		case want == readable && o.givesWay():
			return true
		default:
			o.parked, o.turns = true, 0
			o.watch()
			return false
		}
	}
}

// givesWay says whether o, which needs more data, must let a Write or CloseWrite go first. That is
// so if the Write or CloseWrite waits for the rest of a message, although the message is complete
// by now.
func (o *op) givesWay() bool {
	return o.c.wanting.Load() > 0 && (o.kind == opReset || o.kind == opRead && !o.inMessage)
}

// If the context of an operation has ended, or its Conn is being closed, interrupted ends the
// operation and returns true.
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

// wakeReader makes a Read that waits for the socket try again. In the middle of a message of the
// handshake layer, SSL_write and SSL_do_handshake read the rest of the message, and maybe data
// behind it. So OpenSSL has the data, but the socket has none that would end the wait: epoll(7)
// reports an event only if the socket is still readable when the event is collected.
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

// giveUp fails the connection, and ends the operation, after mostTurns calls without progress.
func (o *op) giveUp() {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.fail(o.problem("OpenSSL wants to wait for a socket that is ready"))
	}
	o.end(c.readErr)
}
