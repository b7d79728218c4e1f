package openssl

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// This file has an operation's stay in the library: the SSL calls, and what their results mean
// (SSL_get_error(3)).

// step makes the SSL calls of one stay. Call it inside exclusiveFor.
func (o *op) step(t *thread) {
	o.until = len(o.buf)
	if o.kind == opWrite {
		o.until = min(o.until, o.at+piece)
	}
	o.code, o.errno, o.unexplained, o.closed, o.sound, o.sealed = 0, 0, false, false, false, 0
	o.inMessage = false
	if o.ret = -1; !o.c.attach(t) {
		return
	}
	o.cErrno = nil
	// callSSL needs errno only for calls that read. A Write or shutdown usually reads nothing.
	// For these two, callSSL looks errno up only if a call fails.
	if o.kind != opWrite && o.kind != opShutdown {
		o.cErrno = o.lib().errno()
	}
	for o.callSSL() {
	}
	o.sound = o.collect(t)
	o.inMessage = o.kind == opRead && o.code == sslErrorWantRead &&
		int32(call(o.lib().sym.sslInInit, o.argv[:1]...)) != 0
	// With opIgnoreEOF the end of the stream looks like close_notify. The socket's BIO shows
	// the difference: if OpenSSL reports that this BIO is at its end, close_notify has not
	// come. A faulty library may never report an end, and then a cut would look like
	// close_notify. So OpenSSL must first report the end of an empty memory BIO.
	o.closed = o.code == sslErrorZeroReturn && o.lib().ends(o.lib().empty) &&
		!o.lib().ends(call(o.lib().sym.sslGetRbio, o.c.ssl)) &&
		int32(call(o.lib().sym.sslGetShutdown, o.c.ssl))&receivedShutdown != 0
}

func (o *op) lib() *Library { return o.c.lib }

// ends says whether OpenSSL reports that a BIO is at its end.
func (l *Library) ends(bio uintptr) bool {
	return int64(call(l.sym.bioCtrl, bio, bioCtrlEOF, 0, 0)) != 0
}

// fullRecord is the most bytes of data in one TLS record (RFC 8446 section 5.1).
const fullRecord = 1 << 14

// sslErrorWantNothing is a code of this package: SSL_get_error has returned SSL_ERROR_WANT_READ,
// but OpenSSL has not met EAGAIN. No event would end a wait, so the SSL call must be made again at
// once. Without SSL_MODE_AUTO_RETRY this happens after a message of the handshake layer, even if
// OpenSSL has more data in a buffer.
const sslErrorWantNothing = -1

// callSSL makes one SSL call. It returns true if another call should follow in the same stay.
func (o *op) callSSL() bool {
	sym := &o.c.lib.sym
	if len(o.args) == 3 {
		o.argv[1] = uintptr(unsafe.Pointer(&o.buf[o.at]))
		o.argv[2] = uintptr(min(o.until-o.at, 1<<30)) // SSL_read and SSL_write take an int
	}
	if o.cErrno != nil {
		*o.cErrno = 0
	}
	o.ret = int32(call(o.fn, o.args...))
	if o.succeeded() {
		if len(o.args) < 3 {
			return false
		}
		o.at += int(o.ret)
		if o.sealed++; o.sealed == 1 {
			o.first = int(o.ret)
		}
		// After a full record there is likely another. After a short one a further SSL_read
		// would usually be a useless system call.
		return o.at < o.until && (o.kind == opWrite || o.ret >= fullRecord)
	}
	o.errArg = [2]uintptr{o.argv[0], uintptr(o.ret)}
	o.code = int32(call(sym.sslGetError, o.errArg[:]...))
	if o.cErrno == nil {
		if o.cErrno = o.lib().errno(); o.code == sslErrorWantRead {
			return true // repeat the call, with errno cleared before it
		}
	}
	switch errno := syscall.Errno(*o.cErrno); {
	case o.code == sslErrorSyscall && errno == syscall.EAGAIN:
		// EAGAIN is no failure. Do not store it in o.errno: the method Timeout() of
		// syscall.EAGAIN returns true, so the error would look like a timeout.
		o.unexplained = true
	case o.code == sslErrorSyscall:
		o.errno = errno
	case o.code == sslErrorWantRead && errno != syscall.EAGAIN:
		o.code = sslErrorWantNothing
	}
	return false
}

// succeeded says whether the last SSL call has succeeded. A result that the manual page of the
// function does not allow is a failure.
func (o *op) succeeded() bool {
	switch o.kind {
	case opHandshake:
		return o.ret == 1
	case opShutdown:
		// 0 of SSL_shutdown is no error, and SSL_get_error must not be asked
		// (SSL_shutdown(3)). 0 of SSL_do_handshake (see judge) is an error.
		return o.ret == 1 || o.ret == 0 && o.fn == o.lib().sym.sslShutdown
	default:
		return o.ret > 0 && !o.beyond()
	}
}

// beyond says whether OpenSSL reports more bytes read or written than the call has asked for.
func (o *op) beyond() bool {
	return (o.kind == opRead || o.kind == opWrite) && o.ret > 0 && uintptr(o.ret) > o.argv[2]
}

// cut says whether OpenSSL has met the end of the peer's data too early.
//
// With opIgnoreEOF, OpenSSL gives SSL_ERROR_ZERO_RETURN after close_notify, and also after an end
// without close_notify. If a Read has met close_notify (op.closed), judge does not call cut. So if
// cut sees SSL_ERROR_ZERO_RETURN of a Read, close_notify is missing. In any other operation
// SSL_ERROR_ZERO_RETURN is a cut in both cases, because the operation needed more data.
//
// Of the three conditions, the first two are for OpenSSL 3.x and 4.x, and the third is for 1.1.1
// (SSL_get_error(3)).
func (o *op) cut(q queue) bool {
	return o.code == sslErrorZeroReturn || q.has(reasonUnexpectedEOF) ||
		o.lib().major < 3 && o.code == sslErrorSyscall && o.errno == 0 &&
			!o.unexplained && len(q) == 0
}

// failure returns the error of an SSL call that has failed and cannot be repeated.
func (c *Conn) failure(o *op, q queue) error {
	if o.kind == opHandshake {
		return c.handshakeFailure(o, q)
	}
	switch {
	case o.beyond():
		return &ProtocolError{Reason: fmt.Sprintf("OpenSSL says that it has moved %d "+
			"bytes where %d were asked for", o.ret, o.argv[2])}
	case o.errno != 0:
		// The SSL never writes to the socket, so even SSL_write can fail only in a read(2).
		return os.NewSyscallError("read", o.errno)
	case o.cut(q):
		return ErrTruncated
	}
	why := q.explain(fmt.Sprintf("OpenSSL gives no reason (SSL_get_error %d)", o.code)) +
		c.uncertified(q)
	if c.refused {
		why += renegotiation
	}
	return &ProtocolError{Reason: why, Queue: q.strings()}
}
