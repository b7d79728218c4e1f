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
	"unsafe"

	"golang.org/x/sys/unix"
)

// What an operation asks of the library, one stay at a time. A stay is made under Conn.mu and never waits.

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
	until  int  // of buf, what this stay may do
	wrote  int  // bytes that it has sealed, and what came beside them
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
	if o.kind != opHandshake && (o.at > o.n || o.done) && !c.mute && !c.out.empty() {
		c.writeErr = ErrWriteBroken
		c.silence()
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
	case o.kind == opShutdown && o.done && c.writeErr == ErrShut:
		return nil
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
	case c.readErr != io.EOF && c.readErr != ErrTruncated:
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
	case !o.sound, o.kind == opWrite && o.at > o.n && o.wrote == 0:
		return o.fail(o.problem("OpenSSL contradicts itself about what is to be sent"))
	case c.out.owed > mostOwed:
		return o.fail(o.problem("the peer asks for answers and does not read them"))
	}
	if o.succeeded() {
		o.turns = 0
		switch o.kind {
		case opRead:
			return o.end(nil)
		case opShutdown:
			c.writeErr, c.shut = ErrShut, true
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
		return readable // for the rest of a message of the handshake layer
	}
	if o.kind == opRead && o.cut(q) {
		if c.sendErrno != 0 { // the system has told a send why, and tells it once
			return o.fail(os.NewSyscallError("read", syscall.ECONNRESET))
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

// step is a stay in the library, for exclusive.
func (o *op) step(t *thread) {
	o.until = len(o.buf)
	if o.kind == opWrite {
		o.until = min(o.until, o.at+piece)
	}
	o.code, o.errno, o.unexplained, o.closed, o.sound = 0, 0, false, false, false
	if o.ret = -1; !o.c.attach(t) {
		return
	}
	o.told = o.lib().errno()
	for o.call() {
	}
	o.wrote, o.sound = o.c.detach(t, o.kind == opRead)
	// With opIgnoreEOF the end of the stream looks like close_notify, except that behind that nothing is read. A
	// library to which nothing is an end is not believed.
	o.closed = o.code == sslErrorZeroReturn && o.lib().ends(t.bio) && !o.lib().ends(call(o.lib().sym.sslGetRbio, o.c.ssl)) &&
		int32(call(o.lib().sym.sslGetShutdown, o.c.ssl))&receivedShutdown != 0
}

func (o *op) lib() *Library { return o.c.lib }

// ends says whether a BIO is at its end. An empty one of memory is.
func (l *Library) ends(bio uintptr) bool {
	return int64(call(l.sym.bioCtrl, bio, bioCtrlEOF, 0, 0)) != 0
}

// fullRecord is the most that one TLS record carries (RFC 8446 section 5.1).
const fullRecord = 1 << 14

// sslErrorWantNothing is our own: the library wants to wait for something to read without having met EAGAIN, so that nothing would
// end the wait. Without SSL_MODE_AUTO_RETRY it does so behind a message of the handshake layer, also if it has more in a buffer.
const sslErrorWantNothing = -1

// call makes one SSL call. It tells whether another should follow.
func (o *op) call() bool {
	sym := &o.c.lib.sym
	if len(o.args) == 3 {
		o.argv[1] = uintptr(unsafe.Pointer(&o.buf[o.at]))
		o.argv[2] = uintptr(min(o.until-o.at, 1<<30)) // C's int
	}
	*o.told = 0
	o.ret = int32(call(o.fn, o.args...))
	errno := syscall.Errno(*o.told)
	if o.succeeded() {
		if len(o.args) < 3 {
			return false
		}
		o.at += int(o.ret)
		// Behind a full record there is likely another; behind a short one a
		// further SSL_read would as a rule be a system call for nothing.
		return o.at < o.until && (o.kind == opWrite || o.ret >= fullRecord)
	}
	o.errArg = [2]uintptr{o.argv[0], uintptr(o.ret)}
	o.code = int32(call(sym.sslGetError, o.errArg[:]...))
	switch {
	case o.code == sslErrorSyscall && errno == syscall.EAGAIN:
		o.unexplained = true // EAGAIN is no failure, and as an error it would pass for a timeout
	case o.code == sslErrorSyscall:
		o.errno = errno
	case o.code == sslErrorWantRead && errno != syscall.EAGAIN:
		o.code = sslErrorWantNothing
	}
	return false
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

// cut says whether OpenSSL has met the end of the connection, without close_notify. 3.x and 4.x say it in the first two
// ways, 1.1.1 in the third (SSL_get_error(3)).
func (o *op) cut(q queue) bool {
	return o.code == sslErrorZeroReturn || q.has(reasonUnexpectedEOF) ||
		o.code == sslErrorSyscall && o.errno == 0 && !o.unexplained && len(q) == 0
}

// failure says why an SSL call has failed for good.
func (c *Conn) failure(o *op, q queue) error {
	if o.kind == opHandshake {
		return c.handshakeFailure(o, q)
	}
	switch {
	case o.beyond():
		return &ProtocolError{Reason: fmt.Sprintf("OpenSSL says that it has moved %d bytes where %d were asked for", o.ret, o.argv[2])}
	case o.errno != 0:
		return os.NewSyscallError("read", o.errno) // also of an SSL_write: to write is Go's
	case o.cut(q):
		return ErrTruncated
	}
	return &ProtocolError{Reason: q.explain(fmt.Sprintf("OpenSSL gives no reason (SSL_get_error %d)", o.code)), Queue: q.strings()}
}

// fail ends both directions: no SSL call is made any more but SSL_free. What waits, ends with the same error. If a
// send had failed before, what the peer says is the better reason. The caller holds c.mu.
func (c *Conn) fail(err error) {
	c.readErr = err
	var protocol *ProtocolError
	if c.writeErr == nil || c.mute && c.writeErr != ErrWriteBroken && errors.As(err, &protocol) {
		c.writeErr = err
	}
	_ = c.nc.SetDeadline(aLongTimeAgo) // it fails only if the socket is closed
}
