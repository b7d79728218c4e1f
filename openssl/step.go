package openssl

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// An operation's stay in the library: the calls, and what their results mean (SSL_get_error(3)).

// step is a stay in the library, for exclusive.
func (o *op) step(t *thread) {
	o.until = len(o.buf)
	if o.kind == opWrite {
		o.until = min(o.until, o.at+piece)
	}
	o.code, o.errno, o.unexplained, o.closed, o.sound, o.sealed = 0, 0, false, false, false, 0
	if o.ret = -1; !o.c.attach(t) {
		return
	}
	o.cErrno = nil
	// errno matters for reading. A Write or shutdown usually reads nothing.
	if o.kind != opWrite && o.kind != opShutdown {
		o.cErrno = o.lib().errno()
	}
	for o.callSSL() {
	}
	o.sound = o.collect(t)
	// With opIgnoreEOF the end of the stream looks like close_notify. The socket's BIO shows
	// the difference: it is at its end only after the end of the stream. To trust this, the
	// library must also report the end of an empty memory BIO, which is at its end.
	o.closed = o.code == sslErrorZeroReturn && o.lib().ends(o.lib().empty) &&
		!o.lib().ends(call(o.lib().sym.sslGetRbio, o.c.ssl)) &&
		int32(call(o.lib().sym.sslGetShutdown, o.c.ssl))&receivedShutdown != 0
}

func (o *op) lib() *Library { return o.c.lib }

// ends says whether a BIO is at its end. An empty memory BIO is.
func (l *Library) ends(bio uintptr) bool {
	return int64(call(l.sym.bioCtrl, bio, bioCtrlEOF, 0, 0)) != 0
}

// fullRecord is the most that one TLS record carries (RFC 8446 section 5.1).
const fullRecord = 1 << 14

// sslErrorWantNothing is our own code: the library wants to wait for data without having met
// EAGAIN, so nothing would end the wait. Without SSL_MODE_AUTO_RETRY it does so after a message of
// the handshake layer, even if it has more data in a buffer.
const sslErrorWantNothing = -1

// callSSL makes one SSL call. It says whether another should follow.
func (o *op) callSSL() bool {
	sym := &o.c.lib.sym
	if len(o.args) == 3 {
		o.argv[1] = uintptr(unsafe.Pointer(&o.buf[o.at]))
		o.argv[2] = uintptr(min(o.until-o.at, 1<<30)) // C's int
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
			return true // again, because errno was not cleared before this call
		}
	}
	switch errno := syscall.Errno(*o.cErrno); {
	case o.code == sslErrorSyscall && errno == syscall.EAGAIN:
		// EAGAIN is no failure, and as an error it would look like a timeout
		o.unexplained = true
	case o.code == sslErrorSyscall:
		o.errno = errno
	case o.code == sslErrorWantRead && errno != syscall.EAGAIN:
		o.code = sslErrorWantNothing
	}
	return false
}

// succeeded says whether the call has done its work. A result that its manual page does not allow
// is a failure.
func (o *op) succeeded() bool {
	switch o.kind {
	case opHandshake:
		return o.ret == 1
	case opShutdown:
		// 0 is no error and not for SSL_get_error (SSL_shutdown(3))
		return o.ret == 0 || o.ret == 1
	default:
		return o.ret > 0 && !o.beyond()
	}
}

// beyond says whether the call claims to have read or written more bytes than it was asked for.
func (o *op) beyond() bool {
	return (o.kind == opRead || o.kind == opWrite) && o.ret > 0 && uintptr(o.ret) > o.argv[2]
}

// cut says whether OpenSSL has met the end of the connection without close_notify. 3.x and 4.x
// report it in the first two ways, 1.1.1 in the third (SSL_get_error(3)).
func (o *op) cut(q queue) bool {
	return o.code == sslErrorZeroReturn || q.has(reasonUnexpectedEOF) ||
		o.lib().major < 3 && o.code == sslErrorSyscall && o.errno == 0 &&
			!o.unexplained && len(q) == 0
}

// failure says why an SSL call has failed for good.
func (c *Conn) failure(o *op, q queue) error {
	if o.kind == opHandshake {
		return c.handshakeFailure(o, q)
	}
	switch {
	case o.beyond():
		return &ProtocolError{Reason: fmt.Sprintf("OpenSSL says that it has moved %d "+
			"bytes where %d were asked for", o.ret, o.argv[2])}
	case o.errno != 0:
		// SSL_write too can fail only in a read(2), because Go does the writing
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
