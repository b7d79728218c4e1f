package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"tlsd/internal/kind"
)

// readChunk is the most that one Read returns, in bytes, however much was
// asked for: what is there is given, and more can be asked for again.
const readChunk = 64 << 10

type connState int

const (
	making connState = iota
	open
	shaking
	ready
	broken // the handshake failed
	failed // it was never made
	closed
)

// connection is one connection handle.
type connection struct {
	s        *Session
	handle   Handle
	accepted bool

	// Guarded by s.mu.
	state    connState
	insecure bool
	closing  bool // a Close has arrived
	torn     bool // a Write has ended before all of its data could be sent
	tls      EngineConn
	ctl      <-chan struct{} // the last control call's end
	in       <-chan struct{} // the last Read's end
	out      <-chan struct{} // the last Write's end
}

// become is the only place where a connection changes its state. It panics on a
// change that the diagram in the package comment does not have. s.mu must be held.
func (c *connection) become(next connState) {
	ok := false
	switch c.state {
	case making:
		ok = next == open || next == ready || next == failed
	case open:
		ok = next == shaking || next == closed
	case shaking:
		ok = next == ready || next == broken
	case ready, broken, failed:
		ok = next == closed
	}
	if !ok {
		panic(fmt.Sprintf("session: handle %d: state %d cannot become %d", c.handle, c.state, next))
	}
	c.state = next
}

// newConnection registers the handle that call will make. s.mu must be held.
func (s *Session) newConnection(h Handle, call *Call, accepted bool) *connection {
	c := &connection{s: s, handle: h, accepted: accepted, ctl: call.done, in: closedChan, out: closedChan}
	s.conns[h] = c
	call.makes = h
	call.abandoned = func() { c.unmade() }
	return c
}

// made gives the connection its engine side.
func (c *connection) made(t EngineConn, st connState) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.tls = t
	c.become(st)
}

// unmade takes back a handle whose making call has failed.
func (c *connection) unmade() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.become(failed)
	delete(c.s.conns, c.handle)
}

// close ends the connection in an orderly way and frees it.
func (c *connection) close() {
	if t := c.forget(); t != nil {
		t.Close()
	}
}

// forget takes the handle out of the session and returns the engine's side, if
// there is one.
func (c *connection) forget() EngineConn {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	t := c.tls
	c.tls = nil
	if c.state != closed {
		c.become(closed)
	}
	delete(c.s.conns, c.handle)
	return t
}

// usable returns the engine side of a connection that has done its handshake.
func (c *connection) usable() (EngineConn, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err := c.stateError(); err != nil {
		return nil, err
	}
	if c.state != ready {
		return nil, fail(kind.State, "the handshake has not been done; call tls.Handshake first")
	}
	return c.tls, nil
}

// stateError says why nothing but Close can be done with the connection, if so.
// s.mu must be held.
func (c *connection) stateError() error {
	switch c.state {
	case failed:
		return fail(kind.Handle, "the call that was to make it failed")
	case closed:
		return fail(kind.Handle, "it is closed")
	case broken:
		return fail(kind.State, "its handshake failed; only tls.Close is possible")
	}
	return nil
}

// NewClient connects to host, a name or an address, at port 1-65535. TLS starts
// with Handshake. The result is the connection's Handle.
func (s *Session) NewClient(host string, port int) *Call {
	const op = "tls.NewClient"
	s.mu.Lock()
	defer s.mu.Unlock()
	h, limit := s.reserve()
	if limit != nil {
		return s.refuse(op, 0, limit)
	}
	var c *connection
	store := s.trust.hold()
	call := s.newCall(op, 0, func(ctx context.Context) (any, error) {
		defer store.release()
		t, err := s.connect(ctx, store, host, port)
		if err != nil {
			c.unmade()
			return nil, err
		}
		c.made(t, open)
		return h, nil
	})
	call.after = []<-chan struct{}{store.settled}
	c = s.newConnection(h, call, false)
	call.abandoned = func() {
		c.unmade()
		store.release()
	}
	return call
}

func (s *Session) connect(ctx context.Context, store *trust, host string, port int) (EngineConn, error) {
	if err := s.available(); err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	ctx, stop := context.WithTimeout(ctx, s.Timeouts.Connect)
	defer stop()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		e := classify(ctx, err, kind.Connect)
		if e.Kind == kind.Timeout {
			e.Why = fmt.Sprintf("no connection within %v", s.Timeouts.Connect)
		}
		if e.Kind != kind.Cancelled {
			e.Why = fmt.Sprintf("connect to %s: %s", addr, e.Why)
		}
		return nil, e
	}
	t, err := store.client(nc.(*net.TCPConn), host)
	if err != nil {
		return nil, classify(ctx, err, kind.Internal)
	}
	return t, nil
}

// onConnection makes a call on a connection handle that runs after the calls of
// the lanes that lanes returns, and replaces the tail of the first of them.
// s.mu must be held.
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
	*tails[0] = call.done
	return call
}

func ctlLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.ctl} }
func inLane(c *connection) []*<-chan struct{}  { return []*<-chan struct{}{&c.in, &c.ctl} }
func outLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.out, &c.ctl} }

// Handshake does the TLS handshake. The result is 0.
func (s *Session) Handshake(h Handle) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.onConnection("tls.Handshake", h, ctlLane, func(ctx context.Context, c *connection) (any, error) {
		return 0, c.handshake(ctx)
	})
}

func (c *connection) handshake(ctx context.Context) error {
	s := c.s
	s.mu.Lock()
	if err := c.stateError(); err != nil || c.state == ready {
		s.mu.Unlock()
		return err
	}
	c.become(shaking)
	t := c.tls
	s.mu.Unlock()

	ctx, stop := context.WithTimeout(ctx, s.Timeouts.Handshake)
	defer stop()
	err := t.Handshake(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		c.become(ready)
		return nil
	}
	c.become(broken)
	return handshakeError(ctx, err, s.Timeouts.Handshake)
}

func handshakeError(ctx context.Context, err error, bound time.Duration) *Error {
	e := classify(ctx, err, kind.Handshake)
	if e.Kind == kind.Timeout {
		e.Why = fmt.Sprintf("no handshake within %v", bound)
	}
	return e
}

// Write sends all of data, at most 16 MiB. It keeps data until it has ended.
// The result is len(data).
func (s *Session) Write(h Handle, data []byte) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(h, data, 0)
}

// WriteRest is the Write of what TryWrite has left, after n bytes have been sent. The
// result is n more than len(data).
func (s *Session) WriteRest(h Handle, data []byte, n int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := s.write(h, data, n)
	if c := s.conns[h]; c != nil {
		call.abandoned = func() {
			s.mu.Lock()
			c.torn = true
			s.mu.Unlock()
		}
	}
	return call
}

// write makes a Write that adds before to its result. s.mu must be held.
func (s *Session) write(h Handle, data []byte, before int) *Call {
	return s.onConnection("tls.Write", h, outLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.usable()
		if err == nil && c.isTorn() {
			err = fail(kind.State, "an earlier Write was cut short, so nothing can follow it; only tls.Read and tls.Close are possible")
		}
		if err != nil || len(data) == 0 {
			return before, err
		}
		n, err := t.Write(ctx, data)
		if err != nil {
			return nil, classify(ctx, err, kind.IO)
		}
		return before + n, nil
	})
}

func (c *connection) isTorn() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.torn
}

// Read waits for data and returns what is there, at most max bytes; none if the
// peer has sent close_notify.
func (s *Session) Read(h Handle, max int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.onConnection("tls.Read", h, inLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.usable()
		if err != nil {
			return nil, err
		}
		buf := make([]byte, min(max, readChunk))
		n, err := t.Read(ctx, buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, classify(ctx, err, kind.IO)
		}
		return buf[:n], nil
	})
}

// Close sends close_notify where that makes sense and frees the handle. It takes its turn
// behind the calls on the handle that were made before it, and ends those that
// go on waiting. The result is 0.
func (s *Session) Close(h Handle) *Call {
	const op = "tls.Close"
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	c.closing = true
	return s.closeInTurn(op, h, c.close, func() bool { return c.state == failed })
}

// SetInsecureSkipVerify turns the verification of the server's certificate off
// or on, before the handshake. The result is 0.
func (s *Session) SetInsecureSkipVerify(h Handle, skip bool) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.onConnection("tls.SetInsecureSkipVerify", h, ctlLane, func(ctx context.Context, c *connection) (any, error) {
		s.mu.Lock()
		err := c.stateError()
		if err == nil && c.accepted {
			err = fail(kind.State, "it is an accepted connection, which verifies no certificate")
		}
		if err == nil && c.state != open {
			err = fail(kind.State, "the handshake has been done already")
		}
		t := c.tls
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if err := t.SetVerify(!skip); err != nil {
			return nil, classify(ctx, err, kind.Internal)
		}
		return 0, nil
	}).instant()
}

// PeerCertSubject is the subject of the peer's certificate in OpenSSL's
// one-line form, or "" if the peer has shown none.
func (s *Session) PeerCertSubject(h Handle) *Call {
	return s.ask("tls.PeerCertSubject", h, EngineConn.PeerSubject)
}

// ConnectionVersion is the negotiated TLS version, such as "TLSv1.3".
func (s *Session) ConnectionVersion(h Handle) *Call {
	return s.ask("tls.Version", h, EngineConn.Version)
}

func (s *Session) ask(op string, h Handle, what func(EngineConn) string) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.onConnection(op, h, ctlLane, func(_ context.Context, c *connection) (any, error) {
		t, err := c.usable()
		if err != nil {
			return nil, err
		}
		return what(t), nil
	}).instant()
}

// instant marks a call that only waits for its turn.
func (c *Call) instant() *Call {
	c.waits = false
	return c
}
