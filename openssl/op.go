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

// What an operation does between two waits: it sends, makes one stay in the library (step.go), and judges what has
// come of it. All of that is under Conn.mu and never waits.

// The kinds of operation.
type opKind int

const (
	opHandshake opKind = iota
	opRead
	opWrite
	opShutdown
	opReset // makes no SSL call
)

// An op is a Read, a Write, a Handshake or a shutdown. They are used again and again, by whichever Conn has something to do, so that
// an operation that need not wait allocates nothing, and a Conn without one needs no memory for it.
type op struct {
	c    *Conn
	kind opKind
	ctx  context.Context
	buf  []byte // what is read to or written from; being here keeps it on the heap, where C may have its address
	most int    // if not 0, buf is taken for each stay, of this size, and given back if it stays empty
	at   int    // bytes of buf that the library has done: given to us, or sealed
	n    int    // bytes done: read, or sent
	err  error  // what has ended it

	finished bool
	done     bool      // a Handshake or shutdown: the library has done its part; what is left is to send it
	dir      direction // what it waits for
	parked   bool      // has waited since it got its turn
	unwatch  func()    // set while ctx is watched
	turns    int       // calls since the last wait or success that have asked for a wait without a need

	// One stay and its outcome.
	fn     uintptr
	args   []uintptr // of argv
	argv   [3]uintptr
	errArg [2]uintptr
	ret    int32
	code   int32  // SSL_get_error, unless the call has succeeded
	told   *int32 // C's errno on this thread
	errno  syscall.Errno
	until  int // of buf, what this stay may do
	// Of the records that a Write has sealed: how many, the data of each but the last, and how many are in front of them that have none.
	sealed, first, besides int

	closed bool // at the end of what can be read: the peer's close_notify is there
	sound  bool // the library does not contradict itself about what is to be sent
	// unexplained says that the system was to tell why the call has failed, and does not.
	unexplained bool

	stepFn func(*thread)      // step, bound once
	tryFn  func(uintptr) bool // try, bound once
}

var ops = sync.Pool{New: func() any {
	o := new(op)
	o.stepFn, o.tryFn = o.step, o.try
	return o
}}

// op is one for the Conn, to be given back.
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

// conclude takes note of what has been given up in the middle.
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
	} else if o.kind != opHandshake && c.failed == nil && (o.at > o.n || o.done) && !c.out.empty() {
		c.writeErr = ErrWriteBroken
		c.silence()
	}
	if o.at > o.n { // the last piece has left in part
		o.n = min(o.at, o.n+max(0, whole-o.besides)*o.first)
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

// barred tells why the operation cannot go on.
func (o *op) barred() error {
	c := o.c
	switch {
	case o.kind == opHandshake:
		return c.readErr // and not for a failed send: the peer's reason may still be read
	case o.kind == opShutdown && o.done && c.writeErr == ErrShut: // by this very one
		return c.failed
	}
	return c.writeErr
}

// once sends what is there to be sent, makes one stay in the library, and sends what has come of it. It
// says what the operation wants to wait for, or sets finished, with its error.
func (o *op) once(fd uintptr) (want direction) {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
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
	q := c.lib.exclusiveFor(o.method(), c.tag.Load(), o.stepFn)
	want = o.judge(q)
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

// lookForReset looks for an error of the socket, without a read, which nothing is there for.
func (o *op) lookForReset(fd uintptr) direction {
	c := o.c
	switch {
	case c.readErr != io.EOF && !errors.Is(c.readErr, ErrTruncated):
		return o.end(c.readErr)
	case c.sendErrno == 0 && poll(fd, 0)&(unix.POLLERR|unix.POLLHUP) == 0:
		return readable
	case c.sendErrno == 0:
		err := error(syscall.ECONNRESET) // unless somebody has been told already
		if n, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); n != 0 {
			err = syscall.Errno(n)
		}
		c.sendFailed(err)
	}
	return o.end(os.NewSyscallError("read", c.sendErrno))
}

// judge takes note of what a stay has brought.
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
		case o.kind == opShutdown: // the message is whole
			o.fn = c.lib.sym.sslShutdown
			return none
		}
		o.done = o.kind != opWrite
		return none
	}
	if o.kind == opRead && o.n > 0 && (o.code == sslErrorWantRead || o.code == sslErrorWantNothing || o.code == sslErrorWantWrite) {
		return o.end(nil) // give what there is
	}
	switch o.code {
	case sslErrorWantRead:
		return readable
	case sslErrorWantNothing, sslErrorWantWrite: // there is always room in memory
		return nothing
	case sslErrorZeroReturn:
		if o.kind == opRead && o.closed {
			return o.readEnds(io.EOF)
		}
	}
	if o.kind == opShutdown && q.has(reasonShutdownInInit) {
		o.fn = c.lib.sym.sslDoHandshake // which reads the rest of a message of the handshake layer
		return nothing
	}
	if o.kind == opRead && o.cut(q) {
		if c.sendErrno != 0 { // the system has told a send why, and tells it once
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

// readEnds ends reading; writing may go on. What has been read in the same stay is given first: the end comes again.
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

// fail ends both directions: no SSL call is made any more but SSL_free. What waits, ends with the same error. If a
// send had failed before, what the peer says is the better reason. The caller holds c.mu.
func (c *Conn) fail(err error) {
	c.readErr, c.failed = err, err
	var protocol *ProtocolError
	if c.writeErr == nil || c.mute && c.writeErr != ErrWriteBroken && errors.As(err, &protocol) {
		c.writeErr = err
	}
	_ = c.nc.SetDeadline(aLongTimeAgo) // it fails only if the socket is closed
}
