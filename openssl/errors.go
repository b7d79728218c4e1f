package openssl

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Errors without details of their own.
//
// The methods of Conn return these variables, the error types below, and errors of Go. The errors
// of Go are:
//
//   - context.Canceled or context.DeadlineExceeded, if the method's context has ended;
//   - net.ErrClosed, if Close has begun;
//   - io.EOF, from Read, after the peer's close_notify;
//   - an error that wraps a syscall.Errno, such as ECONNRESET, if the system has reported it.
var (
	// ErrTruncated says that the connection ended without close_notify. The data that was read
	// may be only a part of the data that the peer sent (RFC 8446 section 6.1).
	ErrTruncated = errors.New("the connection was cut: the peer closed it without close_notify")

	// ErrShut says that Write was called after CloseWrite.
	ErrShut = errors.New("the outgoing direction has been shut")

	// ErrWriteBroken says that a Write or CloseWrite was given up before all of its sealed
	// records were sent. Without these records the peer accepts no later ones, so no data can
	// follow. Reading still works. The error of the call that was given up wraps
	// ErrWriteBroken, too.
	ErrWriteBroken = errors.New("the outgoing stream is broken: a write was given up halfway")

	// ErrNoHandshake says that Handshake had not succeeded yet when a method such as Read or
	// Write was called.
	ErrNoHandshake = errors.New("the TLS handshake has not been done")

	// ErrHandshakeDone says that SetVerify or Configure was called after the beginning of
	// Handshake.
	ErrHandshakeDone = errors.New("the TLS handshake has already begun")

	// ErrServerSide says that SetVerify or Configure was called on a server's connection.
	ErrServerSide = errors.New("the connection is a server's: only clients have this setting")

	// ErrFreed says that a Context was used after Free.
	ErrFreed = errors.New("the TLS context has been freed")
)

// LoadError says that no usable libssl was found, and what was tried.
type LoadError struct {
	Tried []Attempt // in the order of trying; never empty
}

// An Attempt is one library that could not be used.
type Attempt struct {
	Name string // as given to dlopen
	Err  error
}

func (e *LoadError) Error() string {
	var b strings.Builder
	b.WriteString("no usable libssl")
	for i, a := range e.Tried {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		// The text of dlerror usually begins with the name.
		if text := a.Err.Error(); strings.HasPrefix(text, a.Name) {
			b.WriteString(text)
		} else {
			fmt.Fprintf(&b, "%s: %s", a.Name, text)
		}
	}
	return b.String()
}

// Unwrap returns the reasons of all attempts.
func (e *LoadError) Unwrap() []error {
	errs := make([]error, len(e.Tried))
	for i, a := range e.Tried {
		errs[i] = a.Err
	}
	return errs
}

// VerifyError says that the peer's certificate was not accepted.
type VerifyError struct {
	Code    int    // X509_V_ERR_…; -1: the peer showed no certificate, or no pin fits its key
	Reason  string // OpenSSL's text for Code; for -1 a text of this package
	Depth   int    // of the certificate that failed; 0 is the peer's own
	Subject string // of that certificate, in the one-line form
	Store   string // the name of the trust store, for texts that people read
	Host    string // the wanted name or address, if the certificate is not for it; else ""
}

func (e *VerifyError) Error() string {
	if e.Code < 0 {
		return "certificate verify failed: " + e.Reason
	}
	var b strings.Builder
	fmt.Fprintf(&b, "certificate verify failed: %s (%d) at depth %d, subject %s", e.Reason,
		e.Code, e.Depth, cmp.Or(e.Subject, "(empty)"))
	if e.Host != "" {
		fmt.Fprintf(&b, "; the certificate is not for %q", e.Host)
	}
	fmt.Fprintf(&b, "; trust store: %s", e.Store)
	return b.String()
}

// HandshakeError says that a handshake failed for a reason other than verification. After this
// error the connection can only be closed.
type HandshakeError struct {
	Reason string   // for people
	Queue  []string // OpenSSL's error queue, the oldest first
	// Version says that the two sides have no version of TLS in common, as OpenSSL or the
	// peer's alert has reported.
	Version bool
	Err     error // ErrTruncated or a syscall.Errno, if that is the cause; else nil
}

func (e *HandshakeError) Error() string { return "TLS handshake failed: " + e.Reason }

// Unwrap returns Err.
func (e *HandshakeError) Unwrap() error { return e.Err }

// ProtocolError says that TLS failed after the handshake: a broken record, or an alert from the
// peer. After this error the connection can only be closed.
type ProtocolError struct {
	Reason string   // for people
	Queue  []string // OpenSSL's error queue, the oldest first
}

func (e *ProtocolError) Error() string { return "TLS failed: " + e.Reason }

// PEMError says what is wrong with a certificate, a key or a CA bundle.
type PEMError struct {
	What   string   // "certificate" or "key" of a server, or the name given to ParseCABundle
	Block  int      // number of the bad block, from 1; 0 if no single block is bad
	Line   int      // number of the line where that block begins, from 1; 0 if Block is 0
	Reason string   // for people, such as "is empty"; Error puts the place before this text
	Queue  []string // OpenSSL's error queue, the oldest first
}

func (e *PEMError) Error() string {
	if e.Block == 0 {
		return e.What + " " + e.Reason
	}
	return fmt.Sprintf("%s: PEM block %d (line %d) %s", e.What, e.Block, e.Line, e.Reason)
}

// internalError is a failure of OpenSSL that our input does not explain, for example a lack of
// memory.
func internalError(doing string, q queue) error {
	if len(q) == 0 {
		return fmt.Errorf("openssl: %s failed and gave no reason", doing)
	}
	return fmt.Errorf("openssl: %s failed: %s", doing, q.reason())
}
