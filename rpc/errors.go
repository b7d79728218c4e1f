package rpc

import (
	"errors"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// A protocolError is the error of a message that is not a good request, or that names an unknown
// method. Its kind is always "params".
type protocolError struct {
	code int
	why  string
}

func (e *protocolError) Error() string { return e.why }

func invalid(why string) error {
	return &protocolError{wire.CodeInvalidRequest, "invalid request: " + why}
}

// wireError makes the error member of an answer. It is the only function that knows the form of
// Go's errors on the wire.
func wireError(err error) *wire.Error {
	var p *protocolError
	if errors.As(err, &p) {
		return &wire.Error{Code: p.code, Message: p.why,
			Data: &wire.ErrorData{Kind: kind.Params}}
	}
	var e *session.Error
	if !errors.As(err, &e) {
		e = &session.Error{Kind: kind.Internal, Why: err.Error()}
	}
	data := &wire.ErrorData{Kind: e.Kind, Op: e.Op, Handle: int32(e.Handle), Errno: e.Errno,
		OpenSSL: e.OpenSSL}
	if v := e.Verify; v != nil {
		data.Verify = &wire.VerifyDetail{Code: v.Code, Reason: v.Reason, Depth: v.Depth,
			Subject: v.Subject, Store: v.Store}
	}
	code, ok := wire.Codes[e.Kind]
	if !ok {
		code = wire.CodeInternal
	}
	return &wire.Error{Code: code, Message: e.Error(), Data: data}
}
