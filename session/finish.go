package session

import "context"

// A connection ends in two parts. A Close is answered after the first part: the calls on the handle
// have ended, the bytes of its data channel are sent to the peer, and the handle is free. The
// second part happens in the background, within Timeouts.Close: close_notify is sent, and the
// peer's system acknowledges all bytes. As soon as the caller has the answer, it may exit, and its
// exit ends the session. But the session's end does not cut the second part short: [Session.End]
// waits for the second part. Only [Session.Hurry] cuts it short.

// maxFinishing is the most connections of a session that end in the background at the same time.
// Further Closes do both parts before they are answered.
const maxFinishing = 64

// takeFinishSlot puts an element into finishSlots. It returns false if there is no room.
func (s *Session) takeFinishSlot() bool {
	select {
	case s.finishSlots <- struct{}{}:
		return true
	default:
		return false
	}
}

// Close waits for earlier calls on the handle. If none of them ends within stallTimeout, Close
// cancels those that still wait. Then it sends the bytes of the data channel to the peer, and
// close_notify. If the bytes cannot be sent, close_notify is not sent either. Then Close returns
// the error of the send, unless an earlier call has returned it, or there was nothing to send.
// Close frees the handle in any case. The result is 0.
//
// A caller may close its end of the channel first, perhaps in the middle of its data. Then Close
// sends no close_notify, and returns no error. After a Shutdown, close_notify is sent nevertheless.
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

// drain sends the bytes that are still in the data channel. If the caller has closed its end of the
// channel, drain waits no longer than Timeouts.Close for the peer.
func (c *connection) drain(ctx context.Context, p *pumps, callerClosed bool) {
	if callerClosed {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, c.s.Timeouts.Close, errClosed)
		defer stop()
	}
	p.drain(ctx)
}

// close frees the handle and finishes the connection in the background. If no finish slot is free,
// or the session has ended, it finishes the connection before it returns, as far as ctx allows.
// callerClosed says that the caller had closed its end of the data channel when the Close arrived.
// If callerClosed is false, close returns an error of writing that no earlier call has returned. If
// there was nothing to send, nothing is lost, and close returns nil. So the answer does not depend
// on whether a reset by the peer comes before or after the Close.
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
	if t != nil && why != nil {
		t.Abort()
		t = nil
	}
	// torn is true if the caller has closed its end of the channel without a Shutdown, perhaps
	// in the middle of its data. Then close_notify would tell the peer that the data is
	// complete.
	torn := callerClosed && c.flow.canWrite()
	placed := c.finishSlot || s.takeFinishSlot()
	if placed && s.ctx.Err() == nil {
		s.background.Go(func() {
			s.finish(s.finishCtx, t, torn)
			<-s.finishSlots
		})
	} else {
		s.finish(ctx, t, torn)
		if placed {
			<-s.finishSlots
		}
	}
	if unreported && !callerClosed && (p == nil || p.hadToSend) {
		return why
	}
	return nil
}

// cut ends a connection that the caller has not closed. It sends no close_notify. First it sends
// the bytes of the data channel, within Timeouts.Close. Then it waits until the peer's system has
// acknowledged all bytes, again within Timeouts.Close.
func (c *connection) cut(ctx context.Context) {
	if p := c.pumps; p != nil {
		p.drain(ctx)
		p.terminate()
	}
	c.stopAhead()
	t := c.unregister()
	if t == nil {
		return
	}
	if c.flow.status().Write == stateFailed {
		t.Abort()
		return
	}
	// A session may have thousands of dead peers. The slots limit how many connections wait for
	// acknowledgements at the same time. After the end of late, CutContext does not wait.
	late, stop := context.WithTimeout(c.s.finishCtx, c.s.Timeouts.Close)
	defer stop()
	select {
	case c.s.finishSlots <- struct{}{}:
		defer func() { <-c.s.finishSlots }()
	case <-late.Done():
	}
	t.CutContext(late)
}

// finish sends close_notify, unless the connection is torn. In both cases it then waits until the
// peer's system has acknowledged all bytes. Timeouts.Close, Hurry and the end of ctx end the wait.
// But if ctx ends because the session ends, the wait goes on. t may be nil.
func (s *Session) finish(ctx context.Context, t EngineConn, torn bool) {
	if t == nil {
		return
	}
	late, stop := context.WithTimeout(s.finishCtx, s.Timeouts.Close)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if context.Cause(ctx) != error(errEnded) {
			stop()
		}
	})()
	if torn {
		t.CutContext(late)
	} else {
		t.CloseContext(late)
	}
}

// Hurry ends the waits of the connections that end in the background. It may be called at any time,
// also after End.
func (s *Session) Hurry() { s.stopFinishing() }
