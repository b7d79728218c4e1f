package session

import (
	"cmp"
	"context"
	"time"

	"tlsd/internal/kind"
)

// The bounds of calls on a handle.

// bound is that of a call on a connection handle which is being made now; the session's own would
// be preset. s.mu must be held.
func (s *Session) bound(h Handle, preset time.Duration) time.Duration {
	if c := s.conns[h]; c != nil {
		return cmp.Or(c.bound, preset)
	}
	return preset
}

// writeBound is that of a piece that is sent from now on. s.mu must be held.
func (c *connection) writeBound() time.Duration { return cmp.Or(c.bound, c.s.Timeouts.Write) }

// noHandshake is what a handshake that meets its bound is said to be.
const noHandshake = "no handshake"

// bounded is ctx with a bound; who meets it gets an error of kind "timeout" that says what there
// was not in that time. 0 is no bound.
func bounded(ctx context.Context, bound time.Duration, missing string) (context.Context, context.CancelFunc) {
	if bound == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, bound, fail(kind.Timeout, "%s within %v", missing, bound))
}

// SetTimeout bounds each Handshake, Read and piece of a Write on a connection handle, each Accept
// on a context handle, or with the handle 0 each NewClient, that is made afterwards. The bound 0
// brings the session's own timeouts back. The result is 0, when it is known that there is such a
// handle.
func (s *Session) SetTimeout(h Handle, bound time.Duration) *Call {
	const op = "tls.SetTimeout"
	s.mu.Lock()
	defer s.mu.Unlock()
	if h == 0 {
		s.connectBound = bound
		return s.newCall(op, 0, func(context.Context) (any, error) { return 0, nil }).instant()
	}
	if s.contexts[h] != nil {
		return s.setAcceptTimeout(op, h, bound)
	}
	call := s.onConnection(op, h, ctlLane, func(_ context.Context, c *connection) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return 0, c.stateError()
	}).instant()
	if c := s.conns[h]; c != nil {
		c.bound = bound // now: calls that were made before have theirs already
		if c.pumps != nil {
			c.pumps.limit.set(c.writeBound())
		}
	}
	return call
}
