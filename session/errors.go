package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// An Error says how a call has failed. Its text is what tls.LastError returns.
type Error struct {
	Kind   kind.Kind
	Op     string // method name; may be empty
	Handle Handle // the handle in the caller's request; 0 if none
	Why    string

	// name of the system's error, such as "ECONNREFUSED" or "EAI_NONAME"; may be empty
	Errno   string
	Verify  *VerifyError // set with kind "verify"
	OpenSSL []string     // OpenSSL's error queue, the oldest first
}

// A VerifyError has the details of a certificate that was not accepted. Code is an X509_V_ERR
// number, and Reason its text. Depth 0 is the peer's own certificate.
type VerifyError = openssl.VerifyError

// Error returns "op: handle N: why", in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	if e.Handle != 0 {
		fmt.Fprintf(&b, "handle %d: ", e.Handle)
	}
	b.WriteString(e.Why)
	return oneLine(b.String())
}

// oneLine replaces control characters by escapes. A name from a caller or a peer may have some.
func oneLine(s string) string {
	if strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func fail(k kind.Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Why: fmt.Sprintf(format, args...)}
}

// neverMadeText is for a call on a handle whose NewClient, Accept or NewServerContext has failed.
const neverMadeText = "the call that was to make this handle has failed"

// Reasons why a call is cancelled. A call's context has the reason as its cause (context.Cause).
var (
	errCancelled = fail(kind.Cancelled, "cancelled by the caller")
	errClosed    = fail(kind.Cancelled, "the handle was closed while the call waited")
	errEnded     = fail(kind.Cancelled, "the session ended while the call waited")
)

// lookUpError returns the name that getaddrinfo(3) has for the error of a look-up.
func lookUpError(e *net.DNSError) string {
	switch {
	case e.IsNotFound:
		return "EAI_NONAME"
	case e.IsTemporary, e.IsTimeout:
		return "EAI_AGAIN"
	}
	return "EAI_FAIL"
}

// classify makes an *Error from an error of a lower layer. fallback is the kind of an error that
// has no kind of its own. If err is an *Error already, the result is a copy. Otherwise, if ctx was
// cancelled, the result is the context's cause.
func classify(ctx context.Context, err error, fallback kind.Kind) *Error {
	var e *Error
	if errors.As(err, &e) {
		c := *e
		return &c
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		if errors.As(context.Cause(ctx), &e) {
			c := *e
			return &c
		}
		return fail(kind.Cancelled, "%v", context.Cause(ctx))
	}
	out := &Error{Kind: fallback, Why: err.Error()}
	switch {
	case out.fromEngine(err):
	case errors.Is(err, net.ErrClosed):
		return fail(kind.Cancelled, "%s", errClosed.Why)
	case errors.Is(err, openssl.ErrWriteBroken), errors.Is(err, openssl.ErrShut):
		out.Kind = kind.State
	default:
		out.fromSystem(err)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		out.Errno = unix.ErrnoName(errno)
	}
	if out.Verify == nil && isTimeout(err) {
		out.Kind, out.Why = kind.Timeout, timeoutText(ctx)
	}
	return out
}

// fromEngine fills e from a VerifyError, a HandshakeError or a ProtocolError of package openssl. It
// returns false if err is none of them.
func (e *Error) fromEngine(err error) bool {
	var (
		verify    *openssl.VerifyError
		handshake *openssl.HandshakeError
		protocol  *openssl.ProtocolError
	)
	switch {
	case errors.As(err, &verify):
		e.Kind, e.Verify = kind.Verify, verify
	case errors.As(err, &handshake):
		e.Kind, e.OpenSSL = kind.Handshake, handshake.Queue
	case errors.As(err, &protocol):
		e.OpenSSL = protocol.Queue
	default:
		return false
	}
	return true
}

// fromSystem sets e.Why to the text of an error of a file, a look-up or the network. It leaves out
// what Go's packages add to the text, such as the operation and the addresses.
func (e *Error) fromSystem(err error) {
	var (
		path  *fs.PathError
		dns   *net.DNSError
		op    *net.OpError
		errno syscall.Errno
	)
	switch {
	case errors.As(err, &path):
		e.Why = fmt.Sprintf("%s: %v", path.Path, path.Err)
	case errors.As(err, &dns):
		e.Why, e.Errno = fmt.Sprintf("look up %s: %s", dns.Name, dns.Err), lookUpError(dns)
	case errors.As(err, &op) && errors.As(err, &errno):
		e.Why = errno.Error()
	case op != nil && op.Err != nil:
		e.Why = op.Err.Error()
	}
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &netErr) && netErr.Timeout()
}

// timeoutText says which timeout has passed, if the context knows it; see withTimeout.
func timeoutText(ctx context.Context) string {
	if until, ok := ctx.Deadline(); ok && !time.Now().Before(until) {
		// The deadline has passed, but ctx may end a moment later. Before its end, ctx has
		// no cause. So wait for the end.
		<-ctx.Done()
	}
	var e *Error
	if errors.As(context.Cause(ctx), &e) {
		return e.Why
	}
	return "timed out"
}
