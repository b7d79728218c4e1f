package session

import (
	"cmp"
	"context"
	"time"

	"tlsd/internal/kind"
)

// The timeouts of calls on a handle.

// timeoutOf is the timeout of a call that is being made on a connection handle. The parameter
// preset is the session's own timeout for this call. s.mu must be held.
func (s *Session) timeoutOf(h Handle, preset time.Duration) time.Duration {
	if c := s.conns[h]; c != nil {
		return cmp.Or(c.timeout, preset)
	}
	return preset
}

// writeTimeout is the timeout of a piece that is sent from now on. s.mu must be held.
func (c *connection) writeTimeout() time.Duration { return cmp.Or(c.timeout, c.s.Timeouts.Write) }

// noHandshake is the text for a handshake that times out.
const noHandshake = "no handshake"

// withTimeout returns a copy of ctx that ends after the timeout. The cause is an error of kind
// "timeout". Its text begins with the parameter lack, such as "no data". If the timeout is 0, the
// result is ctx itself.
func withTimeout(ctx context.Context, timeout time.Duration, lack string) (
	context.Context, context.CancelFunc) {
	if timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout,
		fail(kind.Timeout, "%s within %v", lack, timeout))
}

// SetTimeout sets the timeout of all calls that are made after it. On a connection handle, this
// timeout replaces Timeouts.Handshake, Timeouts.Read and Timeouts.Write for the calls of the
// connection. For the pieces of a data channel the new timeout applies at once, also to the piece
// that is being sent. On a context handle, it is the timeout of each Accept. With the handle 0, it
// is the timeout of each NewClient. The timeout 0 means the session's own timeouts.
//
// The new timeout holds even before SetTimeout itself has ended. On a connection handle, SetTimeout
// ends after the earlier calls of the control lane (see Call). On a context handle, it ends after
// NewServerContext. The result is 0.
func (s *Session) SetTimeout(h Handle, timeout time.Duration) *Call {
	const op = "tls.SetTimeout"
	s.mu.Lock()
	defer s.mu.Unlock()
	if h == 0 {
		s.connectTimeout = timeout
		done := func(context.Context) (any, error) { return 0, nil }
		return s.newCall(op, 0, done).instant()
	}
	if s.contexts[h] != nil {
		return s.setAcceptTimeout(op, h, timeout)
	}
	run := func(_ context.Context, c *connection) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return 0, c.stateError()
	}
	call := s.onConnection(op, h, controlLane, run).instant()
	if c := s.conns[h]; c != nil {
		// The timeout is set now, and not when the call runs. This changes no earlier call,
		// because each call has taken its timeout already.
		c.timeout = timeout
		if c.pumps != nil {
			c.pumps.limit.set(c.writeTimeout())
		}
	}
	return call
}
