package client

import (
	"fmt"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
)

// A Kind is one of a few categories of failure, by which a program can decide what to do.
type Kind = kind.Kind

// The kinds. proto.md, section 5, says what each means.
const (
	KindParams    = kind.Params
	KindHandle    = kind.Handle
	KindState     = kind.State
	KindBackend   = kind.Backend
	KindFile      = kind.File
	KindConnect   = kind.Connect
	KindHandshake = kind.Handshake
	KindVerify    = kind.Verify
	KindIO        = kind.IO
	KindTimeout   = kind.Timeout
	KindCancelled = kind.Cancelled
	KindLimit     = kind.Limit
	KindDenied    = kind.Denied
	KindLost      = kind.Lost
	KindInternal  = kind.Internal
)

// An Error says how a call failed. Programs decide by Kind:
//
//	var e *client.Error
//	if errors.As(err, &e) && e.Kind == client.KindVerify { … e.Data.Verify.Reason … }
//
// If a call ends because its context has ended, the call's error also satisfies errors.Is with
// context.Canceled or context.DeadlineExceeded.
type Error struct {
	Code    int            // the code of the JSON-RPC error
	Kind    Kind           // never empty
	Message string         // the text for people
	Data    wire.ErrorData // Op, Handle and details, if they are known

	cause error
	local bool // this package has made the error, and not tlsd
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the error by which this side has ended the call: the context's error, the
// connection's error or another error of the system. Several errors are joined. The result is nil
// if there is no such error, for example because tlsd has ended the call.
func (e *Error) Unwrap() error { return e.cause }

// newError makes an error of this package, which does not come from tlsd.
func newError(k Kind, cause error, format string, args ...any) *Error {
	return &Error{
		Code:    wire.Codes[k],
		Kind:    k,
		Message: fmt.Sprintf(format, args...),
		Data:    wire.ErrorData{Kind: k},
		cause:   cause,
		local:   true,
	}
}

// forMethod returns the error with the name of the method. The text of an error that came from tlsd
// does not change, because LastError returns the same text.
func (e *Error) forMethod(method string) *Error {
	c := *e
	if c.Data.Op == "" {
		c.Data.Op = method
	}
	if c.local {
		c.Message = method + ": " + c.Message
	}
	return &c
}

// fromWire makes an Error of an answer. If the answer has no kind (tlsd's answers always have one),
// fromWire takes the kind that belongs to the code.
func fromWire(w *wire.Error) *Error {
	e := &Error{Code: w.Code, Message: w.Message}
	if w.Data != nil {
		e.Data = *w.Data
	}
	if e.Data.Kind == "" {
		e.Data.Kind = kindOf(w.Code)
	}
	e.Kind = e.Data.Kind
	return e
}

func kindOf(code int) Kind {
	switch code {
	case wire.CodeParse, wire.CodeInvalidRequest, wire.CodeMethodNotFound:
		return kind.Params
	}
	for k, c := range wire.Codes {
		if c == code {
			return k
		}
	}
	return kind.Internal
}
