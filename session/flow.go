package session

import (
	"strings"
	"sync"

	"tlsd/internal/kind"
)

// The states of a direction. A direction leaves stateOpen at most once, and then keeps its state.
const (
	stateOpen   = "open"
	stateEnd    = "end"    // reading: the peer has sent close_notify
	stateShut   = "shut"   // writing: tlsd has sent close_notify
	stateFailed = "failed" // the error says why
)

// A Status is the state of a connection that has done its handshake. It is the result of
// tls.Status.
type Status struct {
	Read                  string // "open", "end" or "failed"
	Write                 string // "open", "shut" or "failed"
	Received              int64  // bytes that were given to the caller
	Sent                  int64  // bytes that were sent to the peer
	ReadError, WriteError *Error // why a direction has failed, or nil
}

// A flow is the state of both directions of a connection, with or without a data channel. The flow
// changes before the caller can see the end of its channel, or the answer to a call. If the
// caller then asks for the Status, the Status already says why a direction has ended.
type flow struct {
	handle Handle // of the connection, for errors
	meter  *meter // of the session

	mu                 sync.Mutex // guards the rest
	now                Status
	writeErrorReported bool          // the caller knows the WriteError
	changed            chan struct{} // if not nil, closed and dropped at the next change
}

// An event changes a flow. Zero fields change nothing.
type event struct {
	received, sent int
	read, write    string
	err            *Error // why one or both directions fail
	reported       bool   // a call returns err to the caller
}

// change is the only function that changes a flow. The results say which directions the change has
// ended.
func (f *flow) change(e event) (readEnded, writeEnded bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meter.moved(e.received, e.sent)
	f.now.Received += int64(e.received)
	f.now.Sent += int64(e.sent)
	if e.read != "" && f.now.Read == stateOpen {
		f.now.Read, readEnded = e.read, true
		if e.read == stateFailed {
			f.now.ReadError = e.err.forCall(opRead, f.handle)
		}
	}
	switch {
	case e.write != "" && f.now.Write == stateOpen:
		f.now.Write, writeEnded = e.write, true
		if e.write == stateFailed {
			f.now.WriteError, f.writeErrorReported = e.err.forCall(opWrite,
				f.handle), e.reported
		}
	case readEnded && e.write == stateFailed && f.sendFailed():
		// The read has found why the peer ended the connection. The error of the read
		// replaces the error of the send, which says less.
		f.now.WriteError = e.err.forCall(opWrite, f.handle)
	}
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	return readEnded, writeEnded
}

// sendFailed says whether a failure of the network has ended the outgoing direction. f.mu must be
// held.
func (f *flow) sendFailed() bool {
	return f.now.Write == stateFailed && f.now.WriteError.Kind == kind.IO
}

// forCall returns a copy of the error, with the name and the handle of a call. If a read finds that
// the connection was reset, both directions get the error of the read. The error's text begins with
// "read: ". In the copy for a Write, forCall replaces this by "write: ".
func (e *Error) forCall(op string, h Handle) *Error {
	d := *e
	d.Op, d.Handle = op, h
	if rest, ok := strings.CutPrefix(d.Why, "read: "); ok && op == opWrite && d.Errno != "" {
		d.Why = "write: " + rest
	}
	return &d
}

// status returns the state.
func (f *flow) status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// watch returns the state, and a Go channel that is closed at the next change.
func (f *flow) watch() (Status, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.now, f.changed
}

// canWrite says whether the outgoing direction is open.
func (f *flow) canWrite() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now.Write == stateOpen
}

// reportWriteError returns the error of the outgoing direction, or nil, and marks the error as
// reported. unreported says that it was not marked before.
func (f *flow) reportWriteError() (err *Error, unreported bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now.WriteError == nil {
		return nil, false
	}
	unreported = !f.writeErrorReported
	f.writeErrorReported = true
	return f.now.WriteError, unreported
}
