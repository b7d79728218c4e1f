package session

import (
	"context"
	"fmt"
	"time"

	"tlsd/internal/kind"
)

type connState int

const (
	connMaking connState = iota
	connOpen
	connHandshake
	connReady
	connBroken // the handshake has failed
	connFailed // the call that makes the connection (NewClient, Accept) has failed
	connClosed
)

// A connection is one connection handle.
type connection struct {
	s        *Session
	handle   Handle
	accepted bool
	peer     string // host and port that NewClient got; "" if accepted
	flow     flow

	local, remote string // TCP addresses; set before the state leaves connMaking, then constant

	// Guarded by s.mu.
	state      connState
	setup      connSetup // what the handshake will need
	closing    bool      // a Close has arrived
	finishSlot bool      // the Close has taken a finish slot (see takeFinishSlot)
	// the timeout that SetTimeout has set for later calls; 0: the session's own timeouts
	timeout     time.Duration
	tls         EngineConn
	pumps       *pumps          // nil without a data channel
	controlTail <-chan struct{} // Call.done of the newest control call
	readTail    <-chan struct{} // Call.done of the newest Read
	writeTail   <-chan struct{} // Call.done of the newest Write or Shutdown
	ahead       *readAhead      // what a Wait reads for the next Read; nil: nothing
}

// become is the only function that changes the state. It panics if the diagram in doc.go does not
// have a line from the old state to the next. s.mu must be held.
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
		panic(fmt.Sprintf("session: handle %d: state %d cannot become %d",
			c.handle, c.state, next))
	}
	c.state = next
}

// newConnection registers a connection under the handle h. The parameter call is the NewClient or
// Accept that makes the connection. s.mu must be held.
func (s *Session) newConnection(h Handle, call *Call, accepted bool) *connection {
	c := &connection{s: s, handle: h, accepted: accepted, controlTail: call.done,
		readTail: closedChan, writeTail: closedChan}
	c.flow.handle, c.flow.now.Read, c.flow.now.Write = h, stateOpen, stateOpen
	c.flow.meter = &s.meter
	s.conns[h] = c
	s.count()
	call.makes, call.tail = h, &c.controlTail
	call.onAbandon = func() { c.abandon() }
	return c
}

// setReady makes an accepted connection ready, after its handshake. t is the engine's connection,
// and ch the data channel, or nil.
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

// abandon removes the connection from the session, because the call that makes it has failed.
func (c *connection) abandon() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.become(connFailed)
	delete(c.s.conns, c.handle)
	delete(c.s.watched, c.handle)
	c.s.count()
}

// unregister removes the connection from the session. It returns the engine's connection, or nil.
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

// usable returns the engine's connection. It fails unless the state is ready.
func (c *connection) usable() (EngineConn, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err := c.stateError(); err != nil {
		return nil, err
	}
	if c.state != connReady {
		return nil, fail(kind.State,
			"the handshake has not been done; call tls.Handshake first")
	}
	return c.tls, nil
}

// channelPumps returns the pumps, for Flush and Shutdown. If the connection has no pumps,
// channelPumps returns nil, or fails as usable does. If the connection has pumps, it also has a
// data channel. Then a Close does not wait for an earlier Flush or Shutdown, and does not cancel
// it. So the connection may be closed before the Flush or Shutdown runs, and channelPumps must not
// fail.
func (c *connection) channelPumps() (*pumps, error) {
	_, err := c.usable()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err != nil && c.pumps == nil {
		return nil, err
	}
	return c.pumps, nil
}

// stateError returns an error in the states failed, broken and closed. s.mu must be held.
func (c *connection) stateError() error {
	switch c.state {
	case connFailed:
		return fail(kind.Handle, neverMadeText)
	case connClosed:
		return fail(kind.Handle, "it is closed")
	case connBroken:
		return fail(kind.State, "its handshake failed; only tls.Close is possible")
	}
	return nil
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
	run := func(_ context.Context, c *connection) (any, error) {
		t, err := c.usable()
		if err != nil {
			return nil, err
		}
		return what(t), nil
	}
	return s.onConnection(op, h, controlLane, run).instant()
}
