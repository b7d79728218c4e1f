package openssl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The work of an operation between two waits: it sends, makes one stay in the library (step.go),
// and judges the result. All of this happens under Conn.mu and never waits.

// The kinds of operation.
type opKind int

const (
	opHandshake opKind = iota
	opRead
	opWrite
	opShutdown
	opReset // makes no SSL call
)

// An op is a Read, a Write, a Handshake or a shutdown. Ops are used again, by any Conn that needs
// one. So an operation that need not wait allocates nothing, and a Conn without an operation needs
// no memory for one.
type op struct {
	c    *Conn
	kind opKind
	ctx  context.Context
	// the data to read or write; a field keeps it on the heap, because C gets its address
	buf []byte
	// of a ReadSome, else 0: its limit; it takes buf for each stay, and gives an empty buf back
	most int
	at   int   // bytes of buf that the library has done: read, or sealed
	n    int   // bytes done: read, or sent
	err  error // the error that has ended it

	finished bool
	// of a Handshake or shutdown: the library has done its part, and only the send is left
	done    bool
	dir     direction // the readiness that it waits for
	parked  bool      // it has waited since it got its turn
	unwatch func()    // set while ctx is watched
	// calls since the last wait or success that wanted to wait without EAGAIN
	turns int

	// One stay and its result.
	fn     uintptr
	args   []uintptr // of argv
	fd     uintptr   // of the socket, during a stay
	argv   [3]uintptr
	errArg [2]uintptr
	ret    int32
	code   int32  // SSL_get_error, unless the call has succeeded
	cErrno *int32 // C's errno on this thread; nil: not yet looked up
	errno  syscall.Errno
	until  int // of buf: the end of the data for this stay
	// Of a Write: how many records it has sealed, how much data each of them but the last has,
	// and how many records without data come before them.
	sealed, first, besides int

	closed bool // at the end of the readable data: the peer's close_notify is there
	// of a Read: it has sealed an alert; if the Read succeeds, the alert refuses a
	// renegotiation
	alerted bool
	sound   bool // the library's statements about the bytes to send agree
	// unexplained says that the system should have a reason for the failed call, and has none.
	unexplained bool

	stepFn func(*thread)      // step, bound once
	tryFn  func(uintptr) bool // try, bound once
}

var ops = sync.Pool{New: func() any {
	o := new(op)
	o.stepFn, o.tryFn = o.step, o.try
	return o
}}

// op returns an op for the Conn. It must be given back.
func (c *Conn) op() *op {
	o := ops.Get().(*op)
	o.c = c
	return o
}

func (o *op) giveBack() {
	o.c, o.ctx, o.buf, o.err, o.most = nil, nil, nil, nil, 0
	ops.Put(o)
}

// prepare makes o ready for an operation.
func (o *op) prepare(ctx context.Context, kind opKind, p []byte) {
	sym := &o.c.lib.sym
	o.ctx, o.kind, o.buf, o.at, o.n, o.err = ctx, kind, p, 0, 0, nil
	o.finished, o.done, o.turns = false, false, 0
	o.argv[0] = o.c.ssl
	o.args = o.argv[:1]
	switch kind {
	case opHandshake:
		o.fn, o.dir = sym.sslDoHandshake, readable
	case opRead:
		o.fn, o.dir = sym.sslRead, readable
		o.args = o.argv[:3]
	case opWrite:
		o.fn, o.dir = sym.sslWrite, writable
		o.args = o.argv[:3]
	case opShutdown:
		o.fn, o.dir = sym.sslShutdown, writable
	case opReset:
		o.dir = readable
	}
}

// run does an operation, from the first SSL call to the last.
func (o *op) run(ctx context.Context, kind opKind, p []byte) (n int, err error) {
	o.prepare(ctx, kind, p)
	err = o.wait()
	o.conclude(err)
	runtime.KeepAlive(p)
	return o.n, err
}

// runSome is run for a ReadSome.
func (o *op) runSome(ctx context.Context, limit int) ([]byte, error) {
	o.prepare(ctx, opRead, nil)
	o.most = limit
	err := o.wait()
	p := o.buf
	o.conclude(err)
	if err != nil {
		return nil, err
	}
	return p[:o.n], nil
}

// conclude notes what was given up in the middle.
func (o *op) conclude(err error) {
	c := o.c
	o.ctx, o.buf, o.err = nil, nil, nil
	if err == nil || o.dir == readable && o.kind != opWrite {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = false
	whole, _ := records(c.out.mem[:c.out.sent])
	if c.mute {
		whole = c.whole
	} else if o.kind != opHandshake && c.failed == nil && (o.at > o.n || o.done) &&
		!c.out.empty() {
		c.writeErr = ErrWriteBroken
		c.silence()
	}
	if o.at > o.n { // the last piece has left in part
		o.n = min(o.at, o.n+max(0, whole-o.besides)*o.first)
	}
}

// method is the method for a Watcher.
func (o *op) method() string {
	switch o.kind {
	case opRead:
		return "tls.Read"
	case opWrite:
		return "tls.Write"
	case opShutdown:
		select {
		case <-o.c.done:
			return "tls.Close"
		default:
			return "tls.Shutdown"
		}
	}
	if o.c.client {
		return "tls.Handshake"
	}
	return "tls.Accept"
}

// barred says why the operation cannot go on.
func (o *op) barred() error {
	c := o.c
	switch {
	case o.kind == opHandshake:
		// not the error of a failed send, because the peer's reason may still be read
		return c.readErr
	case o.kind == opShutdown && o.done && c.writeErr == ErrShut: // by this operation itself
		return c.failed
	}
	return c.writeErr
}

// once sends the unsent bytes, makes one stay in the library, and sends the result. It returns the
// readiness that the operation wants to wait for, or sets finished, with the error.
func (o *op) once(fd uintptr) (want direction) {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	o.fd = fd
	switch o.kind {
	case opReset:
		return o.lookForReset(fd)
	case opRead:
		if c.readErr != nil {
			return o.end(c.readErr)
		}
	default:
		c.sending = false
		if err := o.barred(); err != nil {
			return o.end(err)
		}
		if !c.push(fd) {
			c.sending = true
			return writable
		}
		if err := o.barred(); err != nil {
			return o.end(err)
		}
		o.n = o.at
		if o.done || o.kind == opWrite && o.at == len(o.buf) {
			return o.end(nil)
		}
	}
	if o.most > 0 {
		o.buf = someMemory.Get().(*[someBytes]byte)[:min(o.most, someBytes)]
	}
	o.alerted = false
	q := c.lib.exclusiveFor(o.method(), c.tag.Load(), o.stepFn)
	want = o.judge(q)
	if o.alerted && o.err == nil {
		c.refused = true
	}
	if c.established.Load() {
		c.keepFresh()
	}
	if !c.sending {
		c.push(fd)
	}
	if o.most > 0 && o.n == 0 {
		Recycle(o.buf)
		o.buf = nil
	}
	return want
}

// lookForReset looks for an error of the socket without a read, because there is nothing to read.
func (o *op) lookForReset(fd uintptr) direction {
	c := o.c
	switch {
	case c.readErr != io.EOF && !errors.Is(c.readErr, ErrTruncated):
		return o.end(c.readErr)
	case c.sendErrno == 0 && poll(fd, 0)&(unix.POLLERR|unix.POLLHUP) == 0:
		return readable
	case c.sendErrno == 0:
		err := error(syscall.ECONNRESET) // if another operation has got the error already
		if n, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); n != 0 {
			err = syscall.Errno(n)
		}
		c.sendFailed(err)
	}
	return o.end(os.NewSyscallError("read", c.sendErrno))
}

// judge notes the result of a stay.
func (o *op) judge(q queue) (want direction) {
	c := o.c
	if o.kind == opRead {
		o.n = o.at
	}
	switch {
	case !o.sound:
		return o.fail(o.problem("OpenSSL contradicts itself about what is to be sent"))
	case c.out.owed > mostOwed:
		return o.fail(o.problem("the peer asks for answers and does not read them"))
	}
	if o.succeeded() {
		o.turns = 0
		switch {
		case o.kind == opRead:
			return o.end(nil)
		case o.fn == c.lib.sym.sslShutdown:
			c.writeErr, c.shut = ErrShut, true
		case o.kind == opShutdown: // the handshake message is complete now
			o.fn = c.lib.sym.sslShutdown
			return none
		}
		o.done = o.kind != opWrite
		return none
	}
	if o.kind == opRead && o.n > 0 && (o.code == sslErrorWantRead ||
		o.code == sslErrorWantNothing || o.code == sslErrorWantWrite) {
		return o.end(nil) // return the data that is there
	}
	switch o.code {
	case sslErrorWantRead:
		return readable
	case sslErrorWantNothing, sslErrorWantWrite: // the memory was full, and is empty now
		return nothing
	case sslErrorZeroReturn:
		if o.kind == opRead && o.closed {
			return o.readEnds(io.EOF)
		}
	}
	if o.kind == opShutdown && q.has(reasonShutdownInInit) {
		// SSL_do_handshake reads the rest of a message of the handshake layer
		o.fn = c.lib.sym.sslDoHandshake
		return nothing
	}
	if o.kind == opRead && o.cut(q) {
		// the system reports a reset only once, and a send has got the report
		if c.sendErrno != 0 {
			return o.fail(os.NewSyscallError("read", syscall.ECONNRESET))
		}
		if c.refused {
			return o.readEnds(fmt.Errorf("%w%s", ErrTruncated, renegotiation))
		}
		return o.readEnds(ErrTruncated)
	}
	return o.fail(c.failure(o, q))
}

// problem is an error of the operation.
func (o *op) problem(why string) error {
	if o.kind == opHandshake {
		return &HandshakeError{Reason: why}
	}
	return &ProtocolError{Reason: why}
}

// readEnds ends reading; writing may go on. Data that was read in the same stay is returned first:
// the next Read reports the end.
func (o *op) readEnds(err error) direction {
	o.c.readErr = err
	if o.n > 0 {
		err = nil
	}
	return o.end(err)
}

// fail ends the connection. The caller holds mu.
func (o *op) fail(err error) direction {
	o.c.fail(err)
	if o.kind == opRead && o.n > 0 {
		err = nil
	}
	return o.end(err)
}

// end finishes the operation.
func (o *op) end(err error) direction {
	o.finished, o.err = true, err
	return none
}

// fail ends both directions. No SSL call is made any more but SSL_free. Waiting operations end with
// the same error. If a send had failed before, the peer's message is the better reason. The caller
// holds c.mu.
func (c *Conn) fail(err error) {
	c.readErr, c.failed = err, err
	var protocol *ProtocolError
	if c.writeErr == nil || c.mute && c.writeErr != ErrWriteBroken &&
		errors.As(err, &protocol) {
		c.writeErr = err
	}
	_ = c.nc.SetDeadline(aLongTimeAgo) // it fails only if the socket is closed
}
