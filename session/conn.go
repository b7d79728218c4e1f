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
	"tlsd/internal/policy"
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
const writePiece = 64 << 10

// connection is one connection handle.
type connection struct {
	s        *Session
	handle   Handle
	accepted bool
	peer     string // as NewClient was given it

	// Guarded by s.mu.
	state    connState
	insecure bool
	closing  bool          // a Close has arrived
	placed   bool          // that Close has a place to finish it in the background
	torn     bool          // a Write has ended before all of its data could be sent
	bound    time.Duration // of each Handshake, Read and piece of a Write that is made from now on; 0: the session's own
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
	call.makes, call.lane = h, &c.ctl
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
	to, err := policy.ParseHost(host)
	if err != nil {
		return nil, fail(kind.Params, "%v", err)
	}
	addr := net.JoinHostPort(to.String(), strconv.Itoa(port))
	ctx, stop := bounded(ctx, s.Timeouts.Connect, "no connection")
	defer stop()
	nc, err := s.dial(ctx, to, port)
	if err != nil {
		e := classify(ctx, err, kind.Connect)
		if e.Kind != kind.Cancelled && e.Kind != kind.Denied {
			e.Why = fmt.Sprintf("connect to %s: %s", addr, e.Why)
		}
		return nil, e
	}
	t, err := store.client(nc.(*net.TCPConn), to.String())
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

func ctlLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.ctl} }
func inLane(c *connection) []*<-chan struct{}  { return []*<-chan struct{}{&c.ctl, &c.in} }
func outLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.ctl, &c.out} }

// Handshake does the TLS handshake. The result is 0.
func (s *Session) Handshake(h Handle) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	bound := s.bound(h, s.Timeouts.Handshake)
	return s.onConnection("tls.Handshake", h, ctlLane, func(ctx context.Context, c *connection) (any, error) {
		return 0, c.handshake(ctx, bound)
	})
}

// bound is that of a call on a connection handle which is being made now; the session's own would be
// preset. s.mu must be held.
func (s *Session) bound(h Handle, preset time.Duration) time.Duration {
	if c := s.conns[h]; c != nil {
		return cmp.Or(c.bound, preset)
	}
	return preset
}

func (c *connection) handshake(ctx context.Context, bound time.Duration) error {
	s := c.s
	s.mu.Lock()
	if err := c.stateError(); err != nil || c.state == ready {
		s.mu.Unlock()
		return err
	}
	c.become(shaking)
	t := c.tls
	s.mu.Unlock()

	ctx, stop := bounded(ctx, bound, noHandshake)
	defer stop()
	err := t.Handshake(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		c.become(ready)
		return nil
	}
	c.become(broken)
	return s.judgeHandshake("tls.Handshake", c.peer, err, classify(ctx, err, kind.Handshake))
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
		call.abandoned = c.tear
	}
	return call
}

const opWrite = "tls.Write"

// write makes a Write that adds before to its result. s.mu must be held.
func (s *Session) write(h Handle, data []byte, before int) *Call {
	bound := s.bound(h, s.Timeouts.Write)
	return s.onConnection(opWrite, h, outLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.usable()
		if err == nil && c.isTorn() {
			err = fail(kind.State, "an earlier Write was cut short, so nothing can follow it; only tls.Read and tls.Close are possible")
		}
		if err != nil || len(data) == 0 {
			return before, err
		}
		for sent := 0; sent < len(data); {
			n, err := writeWithin(ctx, t, data[sent:min(sent+writePiece, len(data))], bound)
			if sent += n; err != nil {
				if before+sent > 0 {
					c.tear()
				}
				if err.Kind == kind.Timeout {
					err.Why += fmt.Sprintf("; %d of %d have left", before+sent, before+len(data))
				}
				return nil, err
			}
		}
		return before + len(data), nil
	})
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

func (c *connection) isTorn() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.torn
}

// tear notes that a Write has been cut short.
func (c *connection) tear() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.torn = true
}

// Recycle takes back the data that a Read has returned, which nobody may use any more. It need not be called.
func Recycle(data []byte) { openssl.Recycle(data) }

// Read waits for data and returns what is there, at most max bytes; none if the
// peer has sent close_notify. A Read that ends with kind "timeout" has lost nothing.
func (s *Session) Read(h Handle, max int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := s.onConnection("tls.Read", h, inLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.usable()
		if err != nil {
			return nil, err
		}
		data, err := t.ReadSome(ctx, min(max, MaxRead))
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
	}
	return call
}

// Close frees the handle, and has close_notify sent where that makes sense; see finish.go. It takes its turn
// behind the calls on the handle that were made before it, and ends those that
// go on waiting. The result is 0.
func (s *Session) Close(h Handle) *Call { return s.close(h, false) }

// ClosePatiently is Close, but waits for Writes as long as they take, which have a bound.
func (s *Session) ClosePatiently(h Handle) *Call { return s.close(h, true) }

func (s *Session) close(h Handle, patient bool) *Call {
	const op = "tls.Close"
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	c.closing = true
	call := s.closeInTurn(op, h, patient, c.close, func() bool { return c.state == failed })
	if len(s.earlier(call, h)) == 0 && s.placeToFinish() {
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
