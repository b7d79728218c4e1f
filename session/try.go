package session

import (
	"errors"
	"io"

	"tlsd/internal/kind"
)

// ErrWouldBlock is what an [EngineConn] returns from TryRead and TryWrite if it
// would have to wait.
var ErrWouldBlock = errors.New("the operation would have to wait")

// The short way of Read and Write: at once and without a Call, if nothing was
// made before that they would have to wait for, and the system gives or takes the
// data at once. Like all methods of Session they are called in the order of the caller's requests, by
// one goroutine; so nothing can come before them while they run.

// Free reports whether TryWrite would begin, and if need be WriteRest could follow.
func (s *Session) Free(h Handle) bool {
	return s.free(h, outLane) != nil && s.Busy() < s.Limits.Calls
}

// TryRead carries out a Read into buf. It is done if it has succeeded, or failed with an *Error; else nothing has
// happened, and Read is to be called.
func (s *Session) TryRead(h Handle, buf []byte) (n int, done bool, err error) {
	t := s.free(h, inLane)
	if t == nil {
		return 0, false, nil
	}
	n, err = t.TryRead(buf)
	switch {
	case errors.Is(err, ErrWouldBlock):
		return 0, false, nil
	case err != nil && !errors.Is(err, io.EOF):
		return 0, true, s.failed("tls.Read", h, err)
	}
	return n, true, nil
}

// TryWrite carries out as much of a Write as is possible at once. It is done if all of data
// has been sent, or the Write has failed with an *Error. Else n bytes have been sent, and for the rest
// WriteRest is to be called next.
func (s *Session) TryWrite(h Handle, data []byte) (n int, done bool, err error) {
	t := s.free(h, outLane)
	if t == nil {
		return 0, false, nil
	}
	n, err = t.TryWrite(data)
	switch {
	case errors.Is(err, ErrWouldBlock):
		return n, false, nil
	case err != nil:
		return n, true, s.failed("tls.Write", h, err)
	}
	return n, true, nil
}

// free returns the engine's side of a connection that is ready, if no call is
// before us in its lane.
func (s *Session) free(h Handle, lanes func(*connection) []*<-chan struct{}) EngineConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.conns[h]
	if c == nil || c.closing || c.state != ready || c.torn {
		return nil
	}
	for _, tail := range lanes(c) {
		select {
		case <-*tail:
		default:
			return nil
		}
	}
	return c.tls
}

// failed records the failure of a call that was made without a Call.
func (s *Session) failed(op string, h Handle, err error) *Error {
	e := classify(s.ctx, err, kind.IO)
	e.Op, e.Handle = op, h
	s.Fail(e)
	return e
}
