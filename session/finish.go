package session

import "context"

// How a connection ends. Its Close is answered when the handle is free, the calls on it have ended,
// and the bytes of its data channel have left. The rest is finished in the background, within
// Timeouts.Close: close_notify is sent, and the peer's system acknowledges all that was written.
// The end of the session does not cut that short, since the caller was told that all is well.
// [Session.End] waits for it, and [Session.Hurry] cuts it short.

// mostFinishing bounds the connections of a session that are being finished at the same time. A
// Close that finds so many finishes its own before it is answered.
const maxFinishing = 64

// placeToFinish takes one of the places, if there is one.
func (s *Session) takeFinishSlot() bool {
	select {
	case s.finishSlots <- struct{}{}:
		return true
	default:
		return false
	}
}

// Close frees the handle and sends close_notify, unless something was cut short. It takes its turn
// behind the calls on the handle that were made before it, and ends those that go on waiting. What
// the caller has sent on a data channel leaves first. If the caller has closed the channel before
// the Close, it may have been cut short itself, and no close_notify is sent. The result is 0. The
// error says why bytes have not left, if the caller does not know it; the handle is freed all the
// same.
func (s *Session) Close(h Handle) *Call {
	const op = "tls.Close"
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	c.closing = true
	callerClosed := c.pumps != nil && c.pumps.callerClosed()
	closing := func(ctx context.Context) error { return c.close(ctx, callerClosed) }
	call := s.closeAfterEarlier(op, h, closing, func() bool { return c.state == connFailed })
	if c.pumps == nil && len(s.earlier(call, h)) == 0 && s.takeFinishSlot() {
		c.finishSlot, call.waits = true, false
	}
	return call
}

// drain lets what the caller has sent leave. A caller that has closed the channel before, perhaps
// in the middle of a Write, is not made to wait for a peer that does not read.
func (c *connection) drain(ctx context.Context, p *pumps, callerClosed bool) {
	if callerClosed {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, c.s.Timeouts.Close, errClosed)
		defer stop()
	}
	p.drain(ctx)
}

// close frees the handle and finishes the connection. Without a place in the background, or after
// the session's end, it finishes before it returns, as far as ctx allows. The error is that of
// writing, if the caller does not know it.
func (c *connection) close(ctx context.Context, callerClosed bool) error {
	s := c.s
	s.mu.Lock()
	p := c.pumps
	s.mu.Unlock()
	if p != nil {
		c.drain(ctx, p, callerClosed)
		p.terminate()
	}
	c.stopAhead()
	why, unreported := c.flow.reportWriteError()
	t := c.unregister()
	if t != nil && (why != nil || callerClosed && c.flow.canWrite()) {
		// After close_notify the peer would take a part for the whole.
		t.Abort()
		t = nil
	}
	placed := c.finishSlot || s.takeFinishSlot()
	if placed && s.ctx.Err() == nil {
		s.background.Go(func() {
			s.finish(s.finishCtx, t)
			<-s.finishSlots
		})
	} else {
		s.finish(ctx, t)
		if placed {
			<-s.finishSlots
		}
	}
	if unreported && !callerClosed {
		return why
	}
	return nil
}

// cut ends a connection that was not closed, without close_notify. What the caller has sent on a
// data channel leaves first, within Timeouts.Close.
func (c *connection) cut(ctx context.Context) {
	if p := c.pumps; p != nil {
		p.drain(ctx)
		p.terminate()
	}
	c.stopAhead()
	if t := c.unregister(); t != nil {
		t.Abort()
	}
}

// finish ends a connection in an orderly way, as far as ctx and the timeout allow; nil is one that
// has ended.
func (s *Session) finish(ctx context.Context, t EngineConn) {
	if t == nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, s.Timeouts.Close)
	defer stop()
	t.CloseContext(ctx)
}

// Hurry ends the waits for connections that are being finished. It may be called at any time.
func (s *Session) Hurry() { s.stopFinishing() }
