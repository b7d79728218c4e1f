package session

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
)

type connState int

const (
	connMaking connState = iota
	connOpen
	connHandshake
	connReady
	connBroken // the handshake has failed
	connFailed // the making call has failed
	connClosed
)

// A connection is one connection handle.
type connection struct {
	s        *Session
	handle   Handle
	accepted bool
	peer     string // host and port as the caller of NewClient gave them
	flow     flow

	local, remote string // addresses; set before the connection is open or ready

	// Guarded by s.mu.
	state      connState
	setup      connSetup // what the handshake will need
	closing    bool      // a Close has arrived
	finishSlot bool      // the Close holds an element of finishSlots
	// for each Handshake, Read and piece of a Write that is made from now on; 0: the session's
	// timeout
	timeout     time.Duration
	tls         EngineConn
	pumps       *pumps          // nil without a data channel
	controlTail <-chan struct{} // done of the last control call
	readTail    <-chan struct{} // done of the last Read
	writeTail   <-chan struct{} // done of the last Write
	ahead       *readAhead      // nil unless a Wait reads ahead
}

// become is the only function that changes the state. It panics if the diagram of the package
// comment does not have the change. s.mu must be held.
func (c *connection) become(next connState) {
	ok := false
	switch c.state {
	case connMaking:
		ok = next == connOpen || next == connReady || next == connFailed
	case connOpen:
		ok = next == connHandshake || next == connClosed
	case connHandshake:
		ok = next == connReady || next == connBroken
	case connReady, connBroken, connFailed:
		ok = next == connClosed
	}
	if !ok {
		panic(fmt.Sprintf("session: handle %d: state %d cannot become %d", c.handle, c.state, next))
	}
	c.state = next
}

// newConnection registers the handle that call will make. s.mu must be held.
func (s *Session) newConnection(h Handle, call *Call, accepted bool) *connection {
	c := &connection{s: s, handle: h, accepted: accepted, controlTail: call.done, readTail: closedChan, writeTail: closedChan}
	c.flow.handle, c.flow.now.Read, c.flow.now.Write = h, stateOpen, stateOpen
	c.flow.meter = &s.meter
	s.conns[h] = c
	s.count()
	call.makes, call.tail = h, &c.controlTail
	call.onAbandon = func() { c.abandon() }
	return c
}

// setReady gives an accepted connection its engine's side, after the handshake, and its data
// channel if there is one.
func (c *connection) setReady(t EngineConn, ch *channel) {
	t.SetTag(int32(c.handle))
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.tls = t
	c.become(connReady)
	if ch != nil {
		c.attach(ch)
	}
}

// abandon takes back the handle of a making call that has failed.
func (c *connection) abandon() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.become(connFailed)
	delete(c.s.conns, c.handle)
	delete(c.s.watched, c.handle)
	c.s.count()
}

// unregister takes the handle out of the session. It returns the engine's side, if there is one.
// The pumps must have ended.
func (c *connection) unregister() EngineConn {
	c.s.mu.Lock()
	t, b := c.tls, c.setup
	c.tls, c.setup = nil, connSetup{}
	if c.state != connClosed {
		c.become(connClosed)
	}
	delete(c.s.conns, c.handle)
	delete(c.s.watched, c.handle)
	c.s.count()
	c.s.mu.Unlock()
	b.drop()
	return t
}

// usable returns the engine's side of a connection that has done its handshake.
func (c *connection) usable() (EngineConn, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err := c.stateError(); err != nil {
		return nil, err
	}
	if c.state != connReady {
		return nil, fail(kind.State, "the handshake has not been done; call tls.Handshake first")
	}
	return c.tls, nil
}

// channelPumps is for calls that drain the data channel (Flush, Shutdown). It returns the pumps, or
// nil without a channel. A later Close does not cancel such a call, so the connection may be closed
// when the call runs. With pumps this is no error.
func (c *connection) channelPumps() (*pumps, error) {
	_, err := c.usable()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err != nil && c.pumps == nil {
		return nil, err
	}
	return c.pumps, nil
}

// stateError says why only Close is possible on the connection, or returns nil. s.mu must be held.
func (c *connection) stateError() error {
	switch c.state {
	case connFailed:
		return fail(kind.Handle, "the call that makes it has failed")
	case connClosed:
		return fail(kind.Handle, "it is closed")
	case connBroken:
		return fail(kind.State, "its handshake failed; only tls.Close is possible")
	}
	return nil
}

// NewClient connects to host, a name or an address, at port 1-65535. TLS starts with Handshake. The
// result is the connection's Handle.
func (s *Session) NewClient(host string, port int) *Call {
	const op = "tls.NewClient"
	s.mu.Lock()
	defer s.mu.Unlock()
	h, limit := s.reserve()
	if limit != nil {
		return s.refuse(op, 0, limit)
	}
	var c *connection
	store := s.trust.retain()
	to, bad := policy.ParseHost(host)
	timeout := cmp.Or(s.connectTimeout, s.Timeouts.Connect)
	call := s.newCall(op, 0, func(ctx context.Context) (any, error) {
		nc, err := s.connect(ctx, to, bad, port, timeout)
		if err == nil {
			if err = store.prepare(); err != nil {
				nc.Close()
				err = classify(ctx, err, kind.Internal)
			}
		}
		if err != nil {
			store.release()
			c.abandon()
			return nil, err
		}
		c.setOpen(connSetup{tcp: nc, serverName: to.String(), store: store})
		return h, nil
	})
	call.after = []<-chan struct{}{store.settled}
	c = s.newConnection(h, call, false)
	c.peer = net.JoinHostPort(to.String(), strconv.Itoa(port))
	call.onAbandon = func() {
		c.abandon()
		store.release()
	}
	return call
}

// connect connects to a host within the timeout. bad is the error of the host's text, or nil.
func (s *Session) connect(ctx context.Context, to policy.Host, bad error, port int, timeout time.Duration) (*net.TCPConn, error) {
	if err := s.available(); err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, fail(kind.Params, "%v", bad)
	}
	ctx, stop := withTimeout(ctx, timeout, "no connection")
	defer stop()
	nc, err := s.dial(ctx, to, port)
	if err != nil {
		e := classify(ctx, err, kind.Connect)
		if e.Kind != kind.Cancelled && e.Kind != kind.Denied {
			e.Why = fmt.Sprintf("connect to %s: %s", net.JoinHostPort(to.String(), strconv.Itoa(port)), e.Why)
		}
		return nil, e
	}
	return nc.(*net.TCPConn), nil
}

// onConnection makes a call on a connection handle. The call runs after the calls of the given
// lanes, and becomes the tail of the last lane. s.mu must be held.
func (s *Session) onConnection(op string, h Handle, lanes func(*connection) []*<-chan struct{},
	run func(context.Context, *connection) (any, error)) *Call {
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	call := s.newCall(op, h, func(ctx context.Context) (any, error) { return run(ctx, c) })
	tails := lanes(c)
	for _, t := range tails {
		call.after = append(call.after, *t)
	}
	call.tail = tails[len(tails)-1]
	*call.tail = call.done
	return call
}

// beside makes a call on a connection handle. The call runs after the calls of the given lanes, but
// no later call waits for it. s.mu must be held.
func (s *Session) beside(op string, h Handle, lanes func(*connection) []*<-chan struct{},
	run func(context.Context, *connection) (any, error)) *Call {
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	call := s.newCall(op, h, func(ctx context.Context) (any, error) { return run(ctx, c) })
	for _, t := range lanes(c) {
		call.after = append(call.after, *t)
	}
	return call
}

func controlLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.controlTail} }
func readLane(c *connection) []*<-chan struct{} {
	return []*<-chan struct{}{&c.controlTail, &c.readTail}
}
func writeLane(c *connection) []*<-chan struct{} {
	return []*<-chan struct{}{&c.controlTail, &c.writeTail}
}

// Handshake does the TLS handshake. The result is 0. If data is not nil, it becomes the
// connection's data channel, and the session owns it from now on.
func (s *Session) Handshake(h Handle, data *net.UnixConn) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.timeoutOf(h, s.Timeouts.Handshake)
	var call *Call
	call = s.onConnection("tls.Handshake", h, controlLane, func(ctx context.Context, c *connection) (any, error) {
		ch, err := call.channel()
		if err != nil {
			return nil, err
		}
		return 0, c.handshake(ctx, timeout, call, ch)
	})
	call.data = data
	return call
}

// handshake does the handshake, and starts the pumps if there is a data channel.
func (c *connection) handshake(ctx context.Context, timeout time.Duration, call *Call, ch *channel) error {
	s := c.s
	s.mu.Lock()
	err := c.stateError()
	if err == nil && c.state == connReady && ch != nil {
		err = fail(kind.State, "its handshake has been done; a data channel must come with it")
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
		failure = s.judgeHandshake("tls.Handshake", c.peer, err, classify(ctx, err, kind.Handshake))
	}
	s.reportHandshake(Handshake{Server: c.accepted, Peer: cmp.Or(c.peer, c.remote), Failure: failure}, began, t)

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
	return s.onConnection("tls.SetInsecureSkipVerify", h, controlLane, func(_ context.Context, c *connection) (any, error) {
		s.mu.Lock()
		err := c.stateError()
		if err == nil && c.accepted {
			err = fail(kind.State, "it is an accepted connection; only a client can skip the verification")
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
	}).instant()
}

// PeerCertSubject is the subject of the peer's certificate in OpenSSL's one-line form. It is "" if
// the peer has shown none.
func (s *Session) PeerCertSubject(h Handle) *Call {
	return s.query("tls.PeerCertSubject", h, EngineConn.PeerSubject)
}

// ConnectionVersion is the negotiated TLS version, such as "TLSv1.3".
func (s *Session) ConnectionVersion(h Handle) *Call {
	return s.query("tls.Version", h, EngineConn.Version)
}

func (s *Session) query(op string, h Handle, what func(EngineConn) string) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.onConnection(op, h, controlLane, func(_ context.Context, c *connection) (any, error) {
		t, err := c.usable()
		if err != nil {
			return nil, err
		}
		return what(t), nil
	}).instant()
}

// instant marks a call that waits for nothing but earlier calls.
func (c *Call) instant() *Call {
	c.waits = false
	return c
}
