package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// MaxRead is the most that one Read returns, in bytes, however much was
// asked for: what is there is given, and more can be asked for again.
const MaxRead = 32 << 10

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

// writePiece is how much of a Write must leave within its bound, in bytes. What is
// larger is written in such pieces; so a peer that takes data slowly is not taken for one that takes none,
// and one that takes a byte now and then is.
const writePiece = pieceBytes

// connection is one connection handle.
type connection struct {
	s        *Session
	handle   Handle
	accepted bool
	peer     string // as NewClient was given it
	flow     flow

	// Guarded by s.mu.
	state    connState
	insecure bool
	closing  bool          // a Close has arrived
	placed   bool          // that Close has a place to finish it in the background
	bound    time.Duration // of each Handshake, Read and piece of a Write that is made from now on; 0: the session's own
	tls      EngineConn
	pumps    *pumps          // nil without a data channel
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
	c.flow.handle, c.flow.now.Read, c.flow.now.Write = h, stateOpen, stateOpen
	s.conns[h] = c
	call.makes, call.lane = h, &c.ctl
	call.abandoned = func() { c.unmade() }
	return c
}

// made gives the connection its engine side, and its data channel if there is one.
func (c *connection) made(t EngineConn, st connState, ch *channel) {
	t.SetTag(int32(c.handle))
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.tls = t
	c.become(st)
	if ch != nil {
		c.attach(ch)
	}
}

// unmade takes back a handle whose making call has failed.
func (c *connection) unmade() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.become(failed)
	delete(c.s.conns, c.handle)
}

// forget takes the handle out of the session and returns the engine's side, if
// there is one. The pumps must have ended.
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

// channelled is usable for a call that goes by the data channel, if there is one.
func (c *connection) channelled() (*pumps, error) {
	if _, err := c.usable(); err != nil {
		return nil, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.pumps, nil
}

// plain is usable for a call that carries bytes itself.
func (c *connection) plain() (EngineConn, error) {
	t, err := c.usable()
	if err != nil {
		return nil, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.pumps != nil {
		return nil, fail(kind.State, "it has a data channel, over which its bytes go")
	}
	return t, nil
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
		c.made(t, open, nil)
		return h, nil
	})
	call.after = []<-chan struct{}{store.settled}
	c = s.newConnection(h, call, false)
	c.peer = net.JoinHostPort(host, strconv.Itoa(port))
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
	ctx, stop := bounded(ctx, s.Timeouts.Connect, "no connection")
	defer stop()
	nc, err := s.dial(ctx, host, port)
	if err != nil {
		e := classify(ctx, err, kind.Connect)
		if e.Kind != kind.Cancelled && e.Kind != kind.Denied {
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
// the lanes that lanes returns, and replaces the tail of the last of them.
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
	call.lane = tails[len(tails)-1]
	*call.lane = call.done
	return call
}

// beside makes a call on a connection handle that runs after the calls of the lanes, but holds up none. s.mu must be held.
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

func ctlLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.ctl} }
func inLane(c *connection) []*<-chan struct{}  { return []*<-chan struct{}{&c.ctl, &c.in} }
func outLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.ctl, &c.out} }

// Handshake does the TLS handshake. The result is 0. If data is not nil, it becomes the connection's data channel; the
// session owns it from now on.
func (s *Session) Handshake(h Handle, data *net.UnixConn) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	bound := s.bound(h, s.Timeouts.Handshake)
	var call *Call
	call = s.onConnection("tls.Handshake", h, ctlLane, func(ctx context.Context, c *connection) (any, error) {
		ch, err := call.channel()
		if err != nil {
			return nil, err
		}
		return 0, c.handshake(ctx, bound, call, ch)
	})
	call.data = data
	return call
}

// bound is that of a call on a connection handle which is being made now; the session's own would be
// preset. s.mu must be held.
func (s *Session) bound(h Handle, preset time.Duration) time.Duration {
	if c := s.conns[h]; c != nil {
		return cmp.Or(c.bound, preset)
	}
	return preset
}

// handshake does it, and gives the connection its data channel, if there is one.
func (c *connection) handshake(ctx context.Context, bound time.Duration, call *Call, ch *channel) error {
	s := c.s
	s.mu.Lock()
	err := c.stateError()
	if err == nil && c.state == ready && ch != nil {
		err = fail(kind.State, "its handshake has been done; a data channel must come with it")
	}
	if err != nil || c.state == ready {
		s.mu.Unlock()
		return err
	}
	c.become(shaking)
	t := c.tls
	s.mu.Unlock()

	ctx, stop := bounded(ctx, bound, noHandshake)
	defer stop()
	err = t.Handshake(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		c.become(broken)
		return s.judgeHandshake("tls.Handshake", c.peer, err, classify(ctx, err, kind.Handshake))
	}
	c.become(ready)
	if ch != nil {
		c.attach(ch)
		call.data = nil
	}
	return nil
}

// noHandshake is what a handshake that meets its bound is said to be.
const noHandshake = "no handshake"

// bounded is ctx with a bound; who meets it gets an error of kind "timeout" that says what there was
// not in that time. 0 is no bound.
func bounded(ctx context.Context, bound time.Duration, missing string) (context.Context, context.CancelFunc) {
	if bound == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, bound, fail(kind.Timeout, "%s within %v", missing, bound))
}

// Write sends all of data, at most 16 MiB, on a connection without a data channel. It keeps data until it has ended.
// The result is len(data).
func (s *Session) Write(h Handle, data []byte) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	bound := s.bound(h, s.Timeouts.Write)
	return s.onConnection(opWrite, h, outLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.plain()
		if err == nil {
			err = c.writable()
		}
		if err != nil || len(data) == 0 {
			return 0, err
		}
		return len(data), c.write(ctx, t, data, bound)
	})
}

// write sends all of data. What cuts it short fails the outgoing direction, unless nothing has left: then another Write
// may follow.
func (c *connection) write(ctx context.Context, t EngineConn, data []byte, bound time.Duration) error {
	for sent := 0; sent < len(data); {
		n, err := writeWithin(ctx, t, data[sent:min(sent+writePiece, len(data))], bound)
		sent += n
		e := event{sent: n}
		if err != nil {
			if err.Kind == kind.Timeout {
				err.Why += fmt.Sprintf("; %d of %d have left", sent, len(data))
			}
			if sent > 0 || !gaveUp(err) {
				e.write, e.err, e.told = stateFailed, err, true
			}
		}
		if c.flow.change(e); err != nil {
			return err
		}
	}
	return nil
}

// gaveUp says whether an error comes from this side's patience, and not from the network.
func gaveUp(err *Error) bool { return err.Kind == kind.Timeout || err.Kind == kind.Cancelled }

// writable says why nothing can be sent any more, if so.
func (c *connection) writable() error {
	st := c.flow.status()
	switch {
	case st.Write == stateShut:
		return fail(kind.State, "close_notify has been sent (tls.Shutdown), so nothing can follow")
	case st.Write != stateFailed:
		return nil
	case gaveUp(st.WriteError):
		return fail(kind.State, "an earlier Write was cut short, so nothing can follow it; only tls.Read and tls.Close are possible")
	}
	c.flow.tell()
	return st.WriteError
}

// writeWithin writes a piece within its bound.
func writeWithin(ctx context.Context, t EngineConn, piece []byte, bound time.Duration) (int, *Error) {
	ctx, stop := bounded(ctx, bound, fmt.Sprintf("the peer has not taken %d bytes", len(piece)))
	defer stop()
	n, err := t.Write(ctx, piece)
	if err != nil {
		return n, classify(ctx, err, kind.IO)
	}
	return n, nil
}

// Recycle takes back the data that a Read has returned, which nobody may use any more. It need not be called.
func Recycle(data []byte) { openssl.Recycle(data) }

// Read waits for data on a connection without a data channel and returns what is there, at most max bytes; none if the
// peer has sent close_notify. A Read that ends with kind "timeout" has lost nothing.
func (s *Session) Read(h Handle, max int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := s.onConnection(opRead, h, inLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.plain()
		if err != nil {
			return nil, err
		}
		data, err := t.ReadSome(ctx, min(max, MaxRead))
		e := event{received: len(data), told: true}
		if err != nil {
			e, _ = readEnd(ctx, err)
			e.told = true
		}
		c.flow.change(e)
		switch {
		case errors.Is(err, io.EOF):
			return []byte{}, nil
		case err != nil:
			return nil, classify(ctx, err, kind.IO)
		}
		return data, nil
	})
	// The wait for an earlier Read counts: that one may have no bound.
	bound := s.bound(h, s.Timeouts.Read)
	call.bound = func(ctx context.Context) (context.Context, context.CancelFunc) { return bounded(ctx, bound, "no data") }
	return call
}

// SetTimeout bounds each Handshake, Read and piece of a Write on a connection handle, or each Accept on a context
// handle, that is made afterwards. 0 brings the session's own timeouts back. The result is 0, when it is known that
// there is such a handle.
func (s *Session) SetTimeout(h Handle, bound time.Duration) *Call {
	const op = "tls.SetTimeout"
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts[h] != nil {
		return s.setAcceptTimeout(op, h, bound)
	}
	call := s.onConnection(op, h, ctlLane, func(_ context.Context, c *connection) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return 0, c.stateError()
	}).instant()
	if c := s.conns[h]; c != nil {
		c.bound = bound // now: calls that were made before have theirs already
		if c.pumps != nil {
			c.pumps.limit.set(c.writeBound())
		}
	}
	return call
}

// writeBound is that of a piece that is sent from now on. s.mu must be held.
func (c *connection) writeBound() time.Duration { return cmp.Or(c.bound, c.s.Timeouts.Write) }

// Close frees the handle, and has close_notify sent where that makes sense; see finish.go. It takes its turn
// behind the calls on the handle that were made before it, and ends those that go on waiting. With a data channel, all that
// the caller has sent leaves first. The result is 0, or why something has not left, if the caller has not been told.
func (s *Session) Close(h Handle) *Call {
	const op = "tls.Close"
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	c.closing = true
	call := s.closeInTurn(op, h, c.close, func() bool { return c.state == failed })
	if c.pumps == nil && len(s.earlier(call, h)) == 0 && s.placeToFinish() {
		c.placed, call.waits = true, false
	}
	return call
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
		if skip {
			if err := s.skipVerify(c.peer); err != nil {
				return nil, err
			}
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
