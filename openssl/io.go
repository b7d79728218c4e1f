package openssl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How an operation waits. The socket is Go's: non-blocking and known to the
// netpoller. The SSL uses its file descriptor (SSL_set_fd), so these rules hold:
//
//   - Every SSL call that may do I/O is made inside a function given to
//     RawConn.Read or RawConn.Write. These keep the descriptor open meanwhile; outside of them its
//     number may already belong to another connection.
//   - Such a function returns false, which is to wait, only if the SSL call that it has
//     just made has met EAGAIN in the direction that the RawConn waits for: WANT_READ in Read, WANT_WRITE in
//     Write. The netpoller is edge-triggered and forgets old readiness when
//     the RawConn call begins, so that in any other case the wake-up would never come.
//   - If the SSL wants the other direction, the operation goes over to the
//     other RawConn method.
//   - Before it returns false, it looks whether the socket is ready after all. A library that wants to wait for what
//     is there is asked again, and given up in the end.
//   - The SSL's mutex is held for one SSL call and never while waiting.
//
// A context ends a wait by a deadline in the past, set on the direction in
// which the operation waits.

// A direction is what an operation waits for.
type direction int

const (
	readable direction = iota
	writable
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
type sem chan struct{}

func newSem() sem { return make(sem, 1) }

// lock fails with the error of ctx, or with net.ErrClosed once done is closed.
func (s sem) lock(ctx context.Context, done <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s <- struct{}{}:
	default:
		select {
		case s <- struct{}{}:
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

func (s sem) unlock() { <-s }

func (s sem) tryLock() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// A slot is the right to wait for the socket in one direction, and to set that
// direction's deadline. Two operations compete for it when a Read has
// something to send, or a Write has to read a message of the peer's handshake layer first.
type slot struct {
	sem     sem
	waiting atomic.Int32 // operations that wait for sem
}

func (s *slot) lock(ctx context.Context, done <-chan struct{}) error {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	return s.sem.lock(ctx, done)
}

// The kinds of operation.
type opKind int

const (
	opHandshake opKind = iota
	opRead
	opWrite
	opShutdown
)

// An op is a Read, a Write, a Handshake or a shutdown. They are used again and again, by whichever Conn has something to do, so that
// an operation that need not wait allocates nothing, and a Conn without one needs no memory for it.
type op struct {
	c    *Conn
	kind opKind
	ctx  context.Context
	buf  []byte // what is read to or written from; being here keeps it on the heap, where C may have its address
	n    int    // bytes done
	err  error  // what has ended it

	finished bool
	pending  bool      // a record is half sent
	dir      direction // what it waits for
	parked   bool      // has waited since it got its slot
	unwatch  func()    // set while ctx is watched

	// One SSL call and its outcome.
	fn     uintptr
	args   []uintptr // of argv
	argv   [3]uintptr
	errArg [2]uintptr
	ret    int32
	code   int32 // SSL_get_error, unless the call has succeeded
	errno  syscall.Errno
	closed bool // at the end of what can be read: the peer's close_notify is there
	// unexplained says that the system was to tell why the call has failed, and does not.
	unexplained bool
	turns       int // calls since the last wait or success that have asked for a wait without a need

	blocked bool    // now would have had to wait
	first   [1]byte // that a ReadSome has read

	stepFn func()             // step, bound once
	tryFn  func(uintptr) bool // try, bound once
	nowFn  func(uintptr)      // now, bound once
}

var ops = sync.Pool{New: func() any {
	o := new(op)
	o.stepFn, o.tryFn, o.nowFn = o.step, o.try, o.now
	return o
}}

// op is one for the Conn, to be given back.
func (c *Conn) op() *op {
	o := ops.Get().(*op)
	o.c = c
	return o
}

func (o *op) giveBack() {
	o.c, o.ctx, o.buf, o.err = nil, nil, nil, nil
	ops.Put(o)
}

// prepare makes o ready for an operation.
func (o *op) prepare(ctx context.Context, kind opKind, p []byte) {
	sym := &o.c.lib.sym
	o.ctx, o.kind, o.buf, o.n, o.err = ctx, kind, p, 0, nil
	o.finished, o.pending, o.turns = false, false, 0
	o.argv[0] = o.c.ssl
	o.args = o.argv[:1]
	switch kind {
	case opHandshake:
		o.fn, o.dir = sym.sslDoHandshake, readable
	case opRead:
		o.fn, o.dir = sym.sslRead, readable
		o.aim()
	case opWrite:
		o.fn, o.dir = sym.sslWrite, writable
		o.aim()
	case opShutdown:
		o.fn, o.dir = sym.sslShutdown, writable
	}
}

// aim sets the arguments to the rest of buf.
func (o *op) aim() {
	const most = 1 << 30 // C's int
	rest := o.buf[o.n:]
	o.argv[1] = uintptr(unsafe.Pointer(&rest[0]))
	o.argv[2] = uintptr(min(len(rest), most))
	o.args = o.argv[:3]
}

// run does an operation, from the first SSL call to the last.
func (o *op) run(ctx context.Context, kind opKind, p []byte) (n int, err error) {
	o.prepare(ctx, kind, p)
	return o.conclude(kind, p, o.wait())
}

// conclude gives an operation's result and forgets it.
func (o *op) conclude(kind opKind, p []byte, err error) (n int, _ error) {
	n = o.n
	o.ctx, o.buf, o.err = nil, nil, nil
	runtime.KeepAlive(p)
	switch kind {
	case opRead:
		if n > 0 {
			err = nil // what has been read must not be lost; the error comes again
		}
	case opWrite:
		begun := o.c.owing || n > 0 || o.pending
		o.c.owing = begun && err == ErrWouldBlock
		if begun && err != nil && !o.c.owing {
			o.c.mu.Lock()
			o.c.writeBroken = true
			o.c.mu.Unlock()
		}
	}
	return n, err
}

// wait calls try, in the RawConn method that its direction needs, until the
// operation is finished, its context ends, or the Conn is closed.
func (o *op) wait() error {
	c := o.c
	for !o.finished {
		d := o.dir
		s := &c.slots[d]
		if err := s.lock(o.ctx, c.done); err != nil {
			return err
		}
		o.parked = false
		var err error
		if d == readable {
			err = c.raw.Read(o.tryFn)
		} else {
			err = c.raw.Write(o.tryFn)
		}
		if o.unwatch != nil {
			o.unwatch()
			o.unwatch = nil
		}
		timeout := errors.Is(err, os.ErrDeadlineExceeded)
		if timeout {
			// Whoever has set it, it is over. Close's own is safe to undo: it
			// comes after done, which the next lock looks at.
			c.setDeadline(d, time.Time{})
		}
		s.sem.unlock()
		switch {
		case err == nil:
		case timeout && o.ctx.Err() != nil:
			return o.ctx.Err()
		case timeout:
		case errors.Is(err, net.ErrClosed):
			return net.ErrClosed
		default:
			return err
		}
	}
	return o.err
}

// mostTurns bounds how often the library is asked again when it wants to wait without a need. What it wants may have come
// just now, a few times in a row.
const mostTurns = 100

// try is the function that RawConn calls: at once, and after each wait.
func (o *op) try(fd uintptr) bool {
	for {
		want, idle := o.once()
		slot := &o.c.slots[o.dir]
		if idle {
			switch {
			case o.kind == opRead && o.n > 0:
				o.finished = true // give what there is
				return true
			case o.turns > mostTurns:
				o.giveUp()
				return true
			case want != o.dir:
				o.turns++
				o.dir = want
				return true
			case o.parked && slot.waiting.Load() > 0:
				return true // it is the other's turn; we line up behind it
			case ready(fd, want):
				o.turns++
				continue
			}
			o.parked, o.turns = true, 0
			o.watch()
			return false
		}
		if o.finished || slot.waiting.Load() > 0 {
			return true
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

// method is what a Watcher is told.
func (o *op) method() string {
	switch o.kind {
	case opRead:
		return "tls.Read"
	case opWrite:
		return "tls.Write"
	case opShutdown:
		return "tls.Close"
	}
	if o.c.client {
		return "tls.Handshake"
	}
	return "tls.Accept"
}

// once makes one SSL call. It says either that the SSL wants to wait (idle) and for what, or
// sets finished if the operation has come to its end, with its error.
func (o *op) once() (want direction, idle bool) {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fatal != nil:
		return o.end(c.fatal)
	case o.kind == opRead && c.eof:
		return o.end(io.EOF)
	case o.kind == opWrite && c.writeBroken:
		return o.end(ErrWriteBroken)
	}
	q := c.lib.exclusiveFor(o.method(), o.stepFn)
	if o.succeeded() {
		o.pending, o.turns = false, 0
		o.advance()
		return 0, false
	}
	switch o.code {
	case sslErrorWantRead:
		return readable, true
	case sslErrorWantWrite:
		// The record exists and waits in the SSL. Only a repetition of this very call can
		// send it, and nothing else can be sent before (SSL_write(3)).
		o.pending = true
		return writable, true
	case sslErrorZeroReturn:
		if o.kind == opRead && o.closed {
			c.eof = true
			return o.end(io.EOF)
		}
	}
	c.fatal = c.failure(o, q)
	return o.end(c.fatal)
}

// step is the SSL call, for exclusive.
func (o *op) step() {
	sym := &o.c.lib.sym
	o.code, o.errno, o.unexplained = 0, 0, false
	o.ret = int32(call(o.fn, o.args...))
	if o.succeeded() {
		return
	}
	o.errArg = [2]uintptr{o.argv[0], uintptr(o.ret)}
	o.code = int32(call(sym.sslGetError, o.errArg[:]...))
	// After the peer's close_notify, ZERO_RETURN also stands for a failed write(2).
	if o.code == sslErrorSyscall || o.code == sslErrorZeroReturn && o.kind != opRead {
		// EAGAIN is no failure, so it is that of an earlier call, and says nothing. As an error it would pass for a timeout.
		if o.errno = o.c.lib.errno(); o.errno == syscall.EAGAIN {
			o.errno, o.unexplained = 0, true
		}
	}
	o.closed = o.code == sslErrorZeroReturn && int32(call(sym.sslGetShutdown, o.argv[0]))&receivedShutdown != 0
}

// succeeded says whether the call has done its work. A result that its manual page does not have is a failure.
func (o *op) succeeded() bool {
	switch o.kind {
	case opHandshake:
		return o.ret == 1
	case opShutdown:
		return o.ret == 0 || o.ret == 1 // 0 is no error and not for SSL_get_error (SSL_shutdown(3))
	default:
		return o.ret > 0 && !o.beyond()
	}
}

// beyond says whether more bytes are said to have been read or written than were asked for.
func (o *op) beyond() bool {
	return (o.kind == opRead || o.kind == opWrite) && o.ret > 0 && uintptr(o.ret) > o.argv[2]
}

// ready says whether the socket has what an operation wants to wait for.
func ready(fd uintptr, d direction) bool { return readyWithin(fd, d, 0) }

// readyWithin waits for it for so long, in a multiple of milliseconds.
func readyWithin(fd uintptr, d direction, most time.Duration) bool {
	events := int16(unix.POLLIN)
	if d == writable {
		events = unix.POLLOUT
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(most.Milliseconds()))
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}

// giveUp ends an operation for which the library wants to wait, although there is nothing to wait for.
func (o *op) giveUp() {
	const why = "OpenSSL wants to wait for a socket that is ready"
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fatal == nil {
		if o.kind == opHandshake {
			c.fatal = &HandshakeError{Reason: why}
		} else {
			c.fatal = &ProtocolError{Reason: why}
		}
	}
	o.end(c.fatal)
}

// end finishes the operation with an error.
func (o *op) end(err error) (direction, bool) {
	o.finished, o.err = true, err
	return 0, false
}

// fullRecord is the most that one TLS record carries (RFC 8446 section 5.1).
const fullRecord = 1 << 14

// advance takes note of a successful call and decides whether to go on.
func (o *op) advance() {
	if o.kind == opHandshake || o.kind == opShutdown {
		o.finished = true
		return
	}
	o.n += int(o.ret)
	rest := len(o.buf) - o.n
	if rest == 0 || o.kind == opRead && o.ret < fullRecord {
		// Behind a full record there is likely another; behind a short one a
		// further SSL_read would as a rule be a system call for nothing.
		o.finished = true
		return
	}
	o.aim()
}

// cut says whether OpenSSL has met the end of the connection. 3.x and 4.x say it the first way, 1.1.1 the
// second (SSL_get_error(3)).
func (o *op) cut(q queue) bool {
	return q.has(reasonUnexpectedEOF) || o.code == sslErrorSyscall && o.errno == 0 && !o.unexplained && len(q) == 0
}

// failure says why an SSL call has failed for good.
func (c *Conn) failure(o *op, q queue) error {
	if o.kind == opHandshake {
		return c.handshakeFailure(o, q)
	}
	switch {
	case o.beyond():
		return &ProtocolError{Reason: fmt.Sprintf("OpenSSL says that it has moved %d bytes where %d were asked for", o.ret, o.argv[2])}
	case o.cut(q), o.code == sslErrorZeroReturn && o.kind == opRead: // the second is said to be the end, without close_notify
		return ErrTruncated
	case o.errno != 0:
		verb := "read"
		if o.kind == opWrite {
			verb = "write"
		}
		return os.NewSyscallError(verb, o.errno)
	}
	return &ProtocolError{Reason: q.explain(fmt.Sprintf("OpenSSL gives no reason (SSL_get_error %d)", o.code)), Queue: q.strings()}
}
