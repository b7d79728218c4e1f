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
		panic(fmt.Sprintf("session: handle %d: state %d cannot become %d",
			c.handle, c.state, next))
	}
	c.state = next
}

// newConnection registers the handle that call will make. s.mu must be held.
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
		return nil, fail(kind.State,
			"the handshake has not been done; call tls.Handshake first")
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
