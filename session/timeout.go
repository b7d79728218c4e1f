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
func (s *Session) timeoutOf(h Handle, preset time.Duration) time.Duration {
	if c := s.conns[h]; c != nil {
		return cmp.Or(c.timeout, preset)
	}
	return preset
}

// writeBound is that of a piece that is sent from now on. s.mu must be held.
func (c *connection) writeTimeout() time.Duration { return cmp.Or(c.timeout, c.s.Timeouts.Write) }

// noHandshake is what a handshake that meets its bound is said to be.
const noHandshake = "no handshake"

// bounded is ctx with a bound; who meets it gets an error of kind "timeout" that says what there
// was not in that time. 0 is no bound.
func withTimeout(ctx context.Context, timeout time.Duration, missing string) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout, fail(kind.Timeout, "%s within %v", missing, timeout))
}

// SetTimeout bounds each Handshake, Read and piece of a Write on a connection handle, each Accept
// on a context handle, or with the handle 0 each NewClient, that is made afterwards. The bound 0
// brings the session's own timeouts back. The result is 0, when it is known that there is such a
// handle.
func (s *Session) SetTimeout(h Handle, timeout time.Duration) *Call {
	const op = "tls.SetTimeout"
	s.mu.Lock()
	defer s.mu.Unlock()
	if h == 0 {
		s.connectTimeout = timeout
		return s.newCall(op, 0, func(context.Context) (any, error) { return 0, nil }).instant()
	}
	if s.contexts[h] != nil {
		return s.setAcceptTimeout(op, h, timeout)
	}
	call := s.onConnection(op, h, controlLane, func(_ context.Context, c *connection) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return 0, c.stateError()
	}).instant()
	if c := s.conns[h]; c != nil {
		c.timeout = timeout // now: calls that were made before have theirs already
		if c.pumps != nil {
			c.pumps.limit.set(c.writeTimeout())
		}
	}
	return call
}
