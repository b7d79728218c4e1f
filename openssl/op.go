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

// This file has what an operation does between two waits: it sends, makes one stay in the library
// (step.go), and judges the result. Conn.mu is locked during all of this, and nothing waits.

// The kinds of operation.
type opKind int

const (
	opHandshake opKind = iota
	opRead
	opWrite
	opShutdown
	opReset // WaitReset, which makes no SSL call
)

// An op is the state of one Read, Write, Handshake, WaitReset or shutdown (CloseWrite, or
// close_notify in Close). A pool keeps ops for later operations of any Conn. So an operation that
// need not wait allocates nothing, and an idle Conn has no op.
type op struct {
	c    *Conn
	kind opKind
	ctx  context.Context
	// The data to read or write. C gets the address of the data, so the data must be on the
	// heap. This field puts the data there, because the op is on the heap.
	buf []byte
	// Of a ReadSome: the largest number of bytes to return; else 0. A ReadSome takes buf from
	// someMemory for each stay. If no data has come, it puts buf back.
	most int
	at   int   // the number of bytes of buf that OpenSSL has read or sealed
	n    int   // the number of bytes that the operation has read or sent
	err  error // the error that has ended the operation

	finished bool
	// of a Handshake or shutdown: no SSL call is left to do, only sending
	done    bool
	dir     direction // the readiness that the operation waits for
	parked  bool      // the operation has waited at least once since it locked Conn.reading
	unwatch func()    // ends watch; nil while ctx is not watched
	// turns is how often in a row the operation has tried again at once, without a wait. There
	// are two reasons: no event would end a wait (the direction nothing), or the operation
	// needs another direction than before. A wait sets turns to 0. An SSL call that succeeds
	// does the same.
	turns int

	// The fields from here to `unexplained` are for one stay: the arguments and the results of
	// its SSL calls.
	fn     uintptr
	args   []uintptr // the part of argv that fn takes
	fd     uintptr   // the socket's number, valid during a stay
	argv   [3]uintptr
	errArg [2]uintptr
	ret    int32
	code   int32         // the result of SSL_get_error; 0 if no call has failed
	cErrno *int32        // C's errno on this thread; nil: not yet looked up
	errno  syscall.Errno // the system's error that made the SSL call fail; 0: none
	until  int           // this stay reads or seals at most buf[:until]
	// These three fields are for a Write. o.sealed is the number of data records that this stay
	// has sealed. Each of them has o.first bytes of data, but the last one may have fewer.
	// o.besides is the number of records without data. These come before the data records.
	sealed, first, besides int

	closed bool // all data is read, and the peer's close_notify has come
	// Of a Read: SSL_read has sealed an alert. If the Read succeeds nevertheless, the peer has
	// asked for a renegotiation, which the alert refuses.
	alerted bool
	sound   bool // the result of collect
	// Of a Read: it must wait for the rest of a message of the handshake layer.
	inMessage bool
	// unexplained says that OpenSSL reports an error of the system, but errno is EAGAIN, which
	// is no failure.
	unexplained bool

	// The methods step and try as function values. They are kept, because making one allocates.
	stepFn func(*thread)
	tryFn  func(uintptr) bool
}

var ops = sync.Pool{New: func() any {
	o := new(op)
	o.stepFn, o.tryFn = o.step, o.try
	return o
}}

// op returns an op for the Conn. The caller must call giveBack at the end.
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
	err = o.conclude(o.wait())
	runtime.KeepAlive(p)
	return o.n, err
}

// runSome does what run does, for a ReadSome.
func (o *op) runSome(ctx context.Context, limit int) ([]byte, error) {
	o.prepare(ctx, opRead, nil)
	o.most = limit
	err := o.wait()
	p := o.buf
	if err = o.conclude(err); err != nil {
		return nil, err
	}
	return p[:o.n], nil
}

// conclude is called at the end of an operation, with its error, and returns the error for the
// caller. If a Write or shutdown was given up in the middle, the Conn sends nothing more, and the
// error wraps ErrWriteBroken. If a Write has failed, some records of its final stay may be sent
// completely. Then conclude adds their data bytes to o.n.
func (o *op) conclude(err error) error {
	c := o.c
	o.ctx, o.buf, o.err = nil, nil, nil
	if err == nil || o.dir == readable && o.kind != opWrite {
		return err
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
		err = fmt.Errorf("%w; %w", err, ErrWriteBroken)
	}
	if o.at > o.n {
		o.n = min(o.at, o.n+max(0, whole-o.besides)*o.first)
	}
	return err
}

// method is the tls method that a Watcher gets for the operation.
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

// barred returns the error that forbids the operation to go on, or nil.
func (o *op) barred() error {
	c := o.c
	switch {
	case o.kind == opHandshake:
		// A failed send does not end the handshake: an alert of the peer may still be read.
		// The alert says more than the error of the send.
		return c.readErr
	case o.kind == opShutdown && o.done && c.writeErr == ErrShut: // o itself has set ErrShut
		return c.failed
	}
	return c.writeErr
}

// The method once sends the unsent bytes, makes one stay in the library, and sends the new bytes.
// It returns the readiness that the operation needs. If the operation has ended, it sets o.finished
// and o.err.
func (o *op) once(fd uintptr) (want direction) {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	o.fd = fd
	if o.kind == opReset {
		return o.lookForReset(fd)
	}
	if want = o.beforeStay(fd); want != none || o.finished {
		return want
	}
	if o.most > 0 {
		o.buf = someMemory.Get().(*[someBytes]byte)[:min(o.most, someBytes)]
	}
	o.alerted = false
	q := c.lib.exclusiveFor(o.method(), c.tag.Load(), o.stepFn)
	want = o.judge(q)
	switch {
	case o.kind == opRead:
		c.inMessage = o.inMessage
	case c.inMessage && o.dir == writable:
		// A Read may wait for the rest of a message, which this stay may have read. (If
		// o.dir is readable, o has locked Conn.reading, so no Read waits for the socket.)
		c.wakeReader()
	}
	if o.alerted && o.err == nil {
		c.refused = true
	}
	if c.established.Load() {
		c.keepFresh()
	}
	if !c.sending && !c.push(fd) && want == readable && o.kind != opRead {
		// The peer may answer only after it has got the unsent bytes. With nothing, once is
		// called again, and waits until they are sent.
		want = nothing
	}
	if o.most > 0 && o.n == 0 {
		Recycle(o.buf)
		o.buf = nil
	}
	return want
}

// beforeStay sends the unsent bytes, except for a Read. If the operation needs no further stay in
// the library, beforeStay ends the operation.
func (o *op) beforeStay(fd uintptr) (want direction) {
	c := o.c
	if o.kind == opRead {
		if c.readErr != nil {
			return o.end(c.readErr)
		}
		return none
	}
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
	return none
}

// lookForReset looks for an error of the socket. It does not read, because the stream has ended.
func (o *op) lookForReset(fd uintptr) direction {
	c := o.c
	switch {
	case c.readErr != io.EOF && !errors.Is(c.readErr, ErrTruncated):
		return o.end(c.readErr)
	case c.sendErrno == 0 && poll(fd, 0)&(unix.POLLERR|unix.POLLHUP) == 0:
		return readable
	case c.sendErrno == 0:
		// If another operation has already taken the error from the socket (SO_ERROR is 0),
		// assume a reset.
		err := error(syscall.ECONNRESET)
		if n, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); n != 0 {
			err = syscall.Errno(n)
		}
		c.sendFailed(err)
	}
	return o.end(os.NewSyscallError("read", c.sendErrno))
}

// judge decides by the results of a stay how the operation goes on. It returns the readiness that
// the operation needs. If the operation has ended, judge sets o.finished and o.err.
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
		return o.advance()
	}
	if o.kind == opRead && o.n > 0 && (o.code == sslErrorWantRead ||
		o.code == sslErrorWantNothing || o.code == sslErrorWantWrite) {
		return o.end(nil) // return the data that is there
	}
	switch o.code {
	case sslErrorWantRead:
		return readable
	case sslErrorWantNothing, sslErrorWantWrite:
		// With WantWrite the pair was full. Now it is empty.
		return nothing
	case sslErrorZeroReturn:
		if o.kind == opRead && o.closed {
			return o.readEnds(io.EOF)
		}
	}
	if o.kind == opShutdown && q.has(reasonShutdownInInit) {
		// SSL_shutdown fails in the middle of a message of the handshake layer.
		// SSL_do_handshake reads the rest of this message.
		o.fn = c.lib.sym.sslDoHandshake
		return nothing
	}
	if o.kind == opRead && o.cut(q) {
		return o.truncated()
	}
	return o.fail(c.failure(o, q))
}

// advance is the part of judge for an SSL call that has succeeded.
func (o *op) advance() (want direction) {
	c := o.c
	o.turns = 0
	switch {
	case o.kind == opRead:
		return o.end(nil)
	case o.fn == c.lib.sym.sslShutdown:
		c.writeErr, c.shut = ErrShut, true
	case o.kind == opShutdown:
		// SSL_shutdown has failed before, because a handshake message was incomplete (see
		// reasonShutdownInInit in judge). Now SSL_do_handshake has read the rest of the
		// message, so SSL_shutdown can succeed.
		o.fn = c.lib.sym.sslShutdown
		return none
	}
	o.done = o.kind != opWrite
	return none
}

// truncated ends a Read that has met an end without close_notify.
func (o *op) truncated() (want direction) {
	switch {
	case o.c.sendErrno != 0:
		// The system reports a reset only once. The send that has failed has got this
		// report, and the read finds only an end.
		return o.fail(os.NewSyscallError("read", syscall.ECONNRESET))
	case o.c.refused:
		return o.readEnds(fmt.Errorf("%w%s", ErrTruncated, renegotiation))
	}
	return o.readEnds(ErrTruncated)
}

// problem makes the error for a fault that this package has found, and not OpenSSL.
func (o *op) problem(why string) error {
	if o.kind == opHandshake {
		return &HandshakeError{Reason: why}
	}
	return &ProtocolError{Reason: why}
}

// readEnds ends reading; writing may go on. If the same stay has read data, this Read returns the
// data, and the next Read returns the error.
func (o *op) readEnds(err error) direction {
	o.c.readErr = err
	if o.n > 0 {
		err = nil
	}
	return o.end(err)
}

// fail makes the connection fail, and ends the operation. If the same stay has read data, this Read
// returns the data, and the next Read returns the error. The caller holds c.mu.
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

// fail ends both directions with err. No operation calls the SSL after that. Waiting operations end
// with the same error. If writing had ended before, later Writes still return the earlier error.
// There is one exception: the earlier error is a failed send, and err is a *ProtocolError. Then
// later Writes return err, because err may name the peer's alert. The caller holds c.mu.
func (c *Conn) fail(err error) {
	c.readErr, c.failed = err, err
	var protocol *ProtocolError
	if c.writeErr == nil || c.mute && c.writeErr != ErrWriteBroken &&
		errors.As(err, &protocol) {
		c.writeErr = err
	}
	_ = c.nc.SetDeadline(aLongTimeAgo) // it fails only if the socket is closed
}
