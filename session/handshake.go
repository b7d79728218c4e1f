package session

import (
	"cmp"
	"context"
	"net"
	"time"

	"tlsd/internal/kind"
)

// Handshake does the TLS handshake. The result is 0. If data is not nil, it becomes the
// connection's data channel, and the session owns it from now on.
func (s *Session) Handshake(h Handle, data *net.UnixConn) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.timeoutOf(h, s.Timeouts.Handshake)
	var call *Call
	run := func(ctx context.Context, c *connection) (any, error) {
		ch, err := call.channel()
		if err != nil {
			return nil, err
		}
		return 0, c.handshake(ctx, timeout, call, ch)
	}
	call = s.onConnection("tls.Handshake", h, controlLane, run)
	call.data = data
	return call
}

// handshake does the handshake, and starts the pumps if there is a data channel.
func (c *connection) handshake(ctx context.Context, timeout time.Duration, call *Call,
	ch *channel) error {
	s := c.s
	s.mu.Lock()
	err := c.stateError()
	if err == nil && c.state == connReady && ch != nil {
		err = fail(kind.State,
			"its handshake has been done already, so it cannot get a data channel")
	}
	if err != nil || c.state == connReady {
		s.mu.Unlock()
		return err
	}
	if err := c.setup.checkUnread(); err != nil {
		s.mu.Unlock()
		return err
	}
	c.become(connHandshake)
	s.mu.Unlock()

	ctx, stop := withTimeout(ctx, timeout, noHandshake)
	defer stop()
	t, err := c.startTLS()
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.become(connBroken)
		return classify(ctx, err, kind.Internal)
	}
	began := time.Now()
	err = t.Handshake(ctx)
	var failure *Error
	if err != nil {
		failure = s.judgeHandshake("tls.Handshake", c.peer, err,
			classify(ctx, err, kind.Handshake))
	}
	s.reportHandshake(Handshake{Server: c.accepted, Peer: cmp.Or(c.peer, c.remote),
		Failure: failure}, began, t)

	s.mu.Lock()
	defer s.mu.Unlock()
	if failure != nil {
		c.become(connBroken)
		return failure
	}
	c.become(connReady)
	if ch == nil {
		ch, c.setup.data = c.setup.data, nil
	}
	if ch != nil {
		c.attach(ch)
		call.data = nil
	}
	return nil
}

// SetInsecureSkipVerify turns the verification of the server's certificate off or on, before the
// handshake. The result is 0.
func (s *Session) SetInsecureSkipVerify(h Handle, skip bool) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := func(_ context.Context, c *connection) (any, error) {
		s.mu.Lock()
		err := c.stateError()
		if err == nil && c.accepted {
			err = fail(kind.State, "it is an accepted connection; "+
				"only a client can skip the verification")
		}
		if err == nil {
			err = c.checkBeforeHandshake()
		}
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if skip {
			if err := s.skipVerify(c.peer); err != nil {
				return nil, err
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		c.setup.insecure = skip
		return 0, nil
	}
	return s.onConnection("tls.SetInsecureSkipVerify", h, controlLane, run).instant()
}
