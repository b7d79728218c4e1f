package session

import (
	"context"
	"time"

	"tlsd/internal/kind"
)

const (
	opRead     = "tls.Read"
	opWrite    = "tls.Write"
	opFlush    = "tls.Flush"
	opShutdown = "tls.Shutdown"
	opStatus   = "tls.Status"
)

// Status returns the state of a connection after its handshake. The result is a Status. If a
// direction has failed, its error becomes the session's last error. If both directions have failed,
// the error of writing becomes the last error. But if an earlier call has returned the error of
// writing, the error of reading becomes the last error.
func (s *Session) Status(h Handle) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := func(_ context.Context, c *connection) (any, error) {
		if _, err := c.usable(); err != nil {
			return nil, err
		}
		st := c.flow.status()
		last := st.ReadError
		if st.WriteError != nil {
			if _, unreported := c.flow.reportWriteError(); unreported ||
				last == nil {
				last = st.WriteError
			}
		}
		if last != nil {
			s.Fail(last)
		}
		return st, nil
	}
	return s.beside(opStatus, h, controlLane, run).instant()
}

// Flush waits until at least the given number of bytes has been sent to the peer, counted from the
// handshake. The result is 0.
func (s *Session) Flush(h Handle, bytes int64) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := func(ctx context.Context, c *connection) (any, error) {
		p, err := c.channelPumps()
		if err != nil {
			return nil, err
		}
		return 0, c.awaitSent(ctx, p, bytes)
	}
	return s.beside(opFlush, h, writeLane, run)
}

// awaitSent waits until at least the given number of bytes has been sent.
func (c *connection) awaitSent(ctx context.Context, p *pumps, bytes int64) error {
	// Without a channel there is nothing to wait for: the Writes before this Flush have ended.
	over := closedChan
	if p != nil {
		over = p.sendingOver
	}
	for {
		st, changed := c.flow.watch()
		switch {
		case st.Sent >= bytes:
			return nil
		case st.Write == stateFailed:
			e, _ := c.flow.reportWriteError()
			return e
		case st.Write != stateOpen:
			return fail(kind.State,
				"writing has ended with close_notify after %d bytes", st.Sent)
		}
		select {
		case <-changed:
		case <-over:
			if st = c.flow.status(); st.Sent < bytes && st.Write == stateOpen {
				return fail(kind.State, "only %d bytes have been written", st.Sent)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Shutdown sends close_notify after all bytes of earlier Writes, or after all bytes that the caller
// has sent on the data channel. Reading goes on. The result is 0. A second Shutdown does nothing.
func (s *Session) Shutdown(h Handle) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.timeoutOf(h, s.Timeouts.Write)
	run := func(ctx context.Context, c *connection) (any, error) {
		p, err := c.channelPumps()
		if err != nil {
			return nil, err
		}
		if p == nil {
			return 0, c.shutdown(ctx, timeout)
		}
		p.shutDown()
		select {
		case <-p.outReturned:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if e, _ := c.flow.reportWriteError(); e != nil {
			return nil, e
		}
		return 0, nil
	}
	return s.onConnection(opShutdown, h, writeLane, run)
}

// shutdown sends close_notify on a connection without a data channel.
func (c *connection) shutdown(ctx context.Context, timeout time.Duration) error {
	switch st := c.flow.status(); {
	case st.WriteError != nil:
		_, _ = c.flow.reportWriteError()
		return st.WriteError
	case st.Write == stateShut:
		return nil
	}
	ctx, stop := context.WithTimeoutCause(ctx, timeout, notTaken(0, timeout))
	defer stop()
	t, err := c.usable()
	if err != nil {
		return err
	}
	if err := t.CloseWrite(ctx); err != nil {
		e := classify(ctx, err, kind.IO)
		c.flow.change(event{write: stateFailed, err: e, reported: true})
		return e
	}
	c.flow.change(event{write: stateShut})
	return nil
}
