package session_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// moment is a timeout that passes soon. era is a timeout that does not pass during a test.
const (
	moment = 50 * time.Millisecond
	era    = time.Hour
)

// timesOut checks that a call fails with kind timeout, and that the error has all texts of says.
func (r *rig) timesOut(c *session.Call, says ...string) {
	r.t.Helper()
	e := r.fails(c, kind.Timeout)
	for _, s := range says {
		if !strings.Contains(e.Error(), s) {
			r.t.Errorf("the error is %q, want one that says %q", e, s)
		}
	}
}

// TestReadTimesOutAndLosesNothing: the timeout is the session's, or comes from SetTimeout. A later
// Read gets the data.
func TestReadTimesOutAndLosesNothing(t *testing.T) {
	t.Parallel()
	for name, byHandle := range map[string]bool{"the session's": false, "the handle's": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bound := session.Timeouts{Read: moment}
			if byHandle {
				bound.Read = era
			}
			r := newRig(t, timeouts(bound))
			h := r.client(r.echo())
			if byHandle {
				r.ok(r.SetTimeout(h, moment))
			}
			r.timesOut(r.Read(h, 10), "tls.Read", "no data within 50ms")
			r.ok(r.Write(h, []byte("x")))
			for {
				// On a slow machine the data may come before the timeout.
				g := r.start(r.Read(h, 10))
				if v, err := g.wait(); err == nil {
					if got := string(v.([]byte)); got != "x" {
						t.Errorf("read %q, want x", got)
					}
					return
				}
				g.fails(kind.Timeout)
			}
		})
	}
}

// TestSetTimeoutHoldsForEachLaterCall: SetTimeout sets the timeout of one handle. SetTimeout with 0
// sets the session's timeout again.
func TestSetTimeoutHoldsForEachLaterCall(t *testing.T) {
	t.Parallel()
	t.Run("Handshake", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		port := testkit.Silent(t)
		a, b := r.NewClient("localhost", port), r.NewClient("localhost", port)
		bound := r.SetTimeout(1, moment) // waits for the connect
		first, second := r.Handshake(1), r.Handshake(2)
		other := r.start(second)
		for _, c := range []*session.Call{a, b, bound} {
			defer r.start(c).ok()
		}
		r.timesOut(first, "no handshake within 50ms")
		if other.ended() {
			t.Errorf("the Handshake of another handle has ended: %v", other.err)
		}
		r.fails(r.SetTimeout(1, moment), kind.State)
		second.Cancel()
		cancelled(t, other)
	})
	t.Run("Read", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.client(r.echo())
		before := r.start(r.Read(h, 1))
		r.ok(r.SetTimeout(h, moment))
		r.timesOut(r.Read(h, 1)) // the time of waiting for the earlier Read counts, too
		if before.ended() {
			t.Errorf("a Read from before SetTimeout has ended: %v", before.err)
		}
		r.ok(r.SetTimeout(h, 0))
		after := r.start(r.Read(h, 1))
		select {
		case <-after.done:
			t.Errorf("a Read without a timeout has ended: %v", after.err)
		case <-time.After(4 * moment): // in this time the Read must not end
		}
		after.Cancel()
		cancelled(t, after)
		before.Cancel()
		cancelled(t, before)
	})
	t.Run("Write", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.client(testkit.Serve(t, func(nc net.Conn) {
			deaf(r, nc)
			<-t.Context().Done()
		}))
		r.ok(r.SetTimeout(h, moment))
		// On a busy machine a Write may time out between two pieces. Then the outgoing
		// stream is whole, and later Writes may succeed. When the buffers are full, a Write
		// times out in the middle of a piece.
		for err := error(nil); err == nil; {
			r.timesOut(r.Write(h, make([]byte, 16<<20)),
				"the peer has not taken 65536 bytes within 50ms",
				"of 16777216 were sent")
			next := r.start(r.Write(h, []byte("x")))
			if _, err = next.wait(); err != nil {
				next.fails(kind.State)
			}
		}
		r.ok(r.Close(h))
	})
	t.Run("Accept", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		port := testkit.Port(t)
		made := r.NewServerContext(r.cert.CertFile, r.cert.KeyFile)
		bound := r.SetTimeout(1, moment) // waits for the context
		accept := r.Accept(1, "127.0.0.1", port)
		defer r.start(made).ok()
		defer r.start(bound).ok()
		r.timesOut(accept, "no client has done its handshake within 50ms")
		// The context still listens: this client connects while no Accept waits.
		r.dial(port)
		r.ok(r.SetTimeout(1, 0))
		r.ok(r.Handshake(r.handle(r.Accept(1, "127.0.0.1", port))))
	})
	t.Run("no such handle", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.fails(r.SetTimeout(1, moment), kind.Handle)
		h := r.server()
		r.ok(r.CloseServerContext(h))
		r.fails(r.SetTimeout(h, moment), kind.Handle)
		bad := r.start(r.NewServerContext("/nonexistent", "/nonexistent"))
		late := r.start(r.SetTimeout(h+1, moment))
		bad.fails(kind.File)
		late.fails(kind.Handle)
	})
}

func TestAcceptTimesOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{Accept: moment}))
	ctx, port := r.server(), testkit.Port(t)
	r.timesOut(r.Accept(ctx, "127.0.0.1", port), "no client")
	nc := dialTCP(t, port) // a client that does not finish its handshake does not count
	r.timesOut(r.Accept(ctx, "127.0.0.1", port), "no client")
	nc.Close()
	r.ok(r.CloseServerContext(ctx))
}

// TestWriteIsBoundedByThePiece: a Write sends its data in pieces of 64 KiB. Each piece has a
// deadline of its own. So a long Write succeeds if the peer goes on taking data.
func TestWriteIsBoundedByThePiece(t *testing.T) {
	t.Parallel()
	var (
		mu    sync.Mutex
		bound []time.Time // the deadline of each piece
	)
	r := newRig(t, timeouts(session.Timeouts{Write: era}),
		func(e *fakeengine.Engine, _ *session.Config) {
			e.Hook = func(ctx context.Context, op fakeengine.Op) error {
				if op == fakeengine.Write {
					until, _ := ctx.Deadline()
					mu.Lock()
					bound = append(bound, until)
					mu.Unlock()
				}
				return nil
			}
		})
	h := r.client(r.echo())
	begun := time.Now()
	if n := r.ok(r.Write(h, make([]byte, 5<<16+1))); n != 5<<16+1 {
		t.Errorf("Write returned %v, want the number of all bytes", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(bound) != 6 {
		t.Fatalf("the data was sent in %d pieces, want 6", len(bound))
	}
	last := begun.Add(era)
	for i, b := range bound {
		if b.Before(last) {
			t.Errorf("the deadline of piece %d is %v, too early: want %v or later",
				i, b, last)
		}
		last = b
	}
}

// TestAWriteCutBetweenPiecesTearsTheStream: a Write is cancelled after its first piece. No Write
// may follow, although the engine could send. No close_notify may follow either, because the peer
// would take the part for the whole.
func TestAWriteCutBetweenPiecesTearsTheStream(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	var orderly atomic.Int32
	r := newRig(t, g.install, func(e *fakeengine.Engine, _ *session.Config) {
		gate := e.Hook
		e.Hook = func(ctx context.Context, op fakeengine.Op) error {
			if op == fakeengine.Close {
				orderly.Add(1)
			}
			return gate(ctx, op)
		}
	})
	h := r.client(testkit.Serve(t, greet(r)))
	c := r.start(r.Write(h, make([]byte, 1<<17)))
	g.release <- nil
	for range 2 {
		select {
		case <-g.arrived:
		case <-time.After(testkit.Patience):
			t.Fatal("the Write has not begun to send two pieces")
		}
	}
	c.Cancel() // the gate holds the second piece: none of it has been sent
	cancelled(t, c)
	r.fails(r.Write(h, []byte("x")), kind.State)
	if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "x" {
		t.Errorf("a Read after the cancelled Write gives %q, want \"x\"", got)
	}
	r.ok(r.Close(h))
	r.gone()
	if n := orderly.Load(); n != 0 {
		t.Error("the connection has ended with close_notify")
	}
}

// TestListenThatTimesOutDoesNotEndOtherAccepts: the Accept that opens the listener times out during
// the look-up of the address. An Accept that waits for this listener then does its own look-up. The
// test counts look-ups, so it is not parallel.
func TestListenThatTimesOutDoesNotEndOtherAccepts(t *testing.T) {
	r := newRig(t)
	ctx, port := r.server(), testkit.Port(t)
	before, name := lookups.Load(), slowName()
	r.ok(r.SetTimeout(ctx, 4*moment))
	a := r.start(r.Accept(ctx, name, port))
	testkit.Until(t, "the look-up has begun", func() bool { return lookups.Load() > before })
	r.ok(r.SetTimeout(ctx, 0))
	b := r.start(r.Accept(ctx, name, port))
	before = lookups.Load()
	a.fails(kind.Timeout)
	testkit.Until(t, "the other Accept has begun its own look-up", func() bool {
		return b.ended() || lookups.Load() > before
	})
	if b.ended() {
		t.Fatalf("the Accept without a timeout has ended: %v", b.err)
	}
	b.Cancel()
	cancelled(t, b)
}

// TestUnclaimedClientsAreClosedTogether: CloseServerContext closes all clients that no Accept has
// returned, and all at the same time. So a client that reads nothing does not delay the others.
func TestUnclaimedClientsAreClosedTogether(t *testing.T) {
	t.Parallel()
	const unclaimed = 4
	var (
		closing atomic.Int32
		armed   atomic.Bool
	)
	together := make(chan struct{})
	r := newRig(t, timeouts(session.Timeouts{Close: testkit.Patience}),
		func(e *fakeengine.Engine, _ *session.Config) {
			e.Hook = func(ctx context.Context, op fakeengine.Op) error {
				if op != fakeengine.Close || !armed.Load() {
					return nil
				}
				if closing.Add(1) == unclaimed {
					close(together)
				}
				select {
				case <-together:
				case <-ctx.Done():
					t.Errorf("%d clients were closed at the same time, want %d",
						closing.Load(), unclaimed)
				}
				return nil
			}
		})
	ctx, port := r.listening()
	before := r.eng.Handshakes.Load()
	for range unclaimed + 1 {
		r.dial(port)
	}
	testkit.Until(t, "the handshakes of all clients are done", func() bool {
		return r.eng.Handshakes.Load() == before+unclaimed+1
	})
	r.handle(r.Accept(ctx, local, port))
	armed.Store(true)
	r.ok(r.CloseServerContext(ctx))
	if n := closing.Load(); n != unclaimed {
		t.Errorf("CloseServerContext has closed %d clients with close_notify, want %d", n,
			unclaimed)
	}
}

// A Write times out before any byte has left. If OpenSSL has encrypted the data by then, no later
// Write can succeed, and Status says at once that writing has failed. Otherwise writing stays open.
func TestStatusSaysAtOnceThatATimeoutHasBrokenTheStream(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	h := r.client(r.serveTLS(&tls.Config{}, func(c *tls.Conn, _ *net.TCPConn) {
		c.Handshake()
		<-t.Context().Done()
	}))
	r.ok(r.SetTimeout(h, moment))
	data := make([]byte, 16000) // one record, so all of the bytes count as sent, or none
	st := r.status(h)
	for st.Write == "open" {
		g := r.start(r.Write(h, data))
		if _, err := g.wait(); err != nil {
			g.fails(kind.Timeout) // state would say that writing was not open
		}
		st = r.status(h)
	}
	if e := st.WriteError; e.Kind != kind.Timeout ||
		!strings.Contains(e.Why, "; 0 of 16000 were sent") {
		t.Errorf("the error of writing is %v, want the timeout of a Write that has sent "+
			"nothing", e)
	}
	r.fails(r.Write(h, data), kind.State)
	r.ok(r.Close(h))
}

// ETIMEDOUT says that the system has given up the connection. Its kind is timeout, but no later
// Write can succeed. So writing has failed, and later Writes give the same error.
func TestTheSystemsTimeoutFailsWriting(t *testing.T) {
	t.Parallel()
	r := newRig(t, failing(fakeengine.Write, netErr("write", syscall.ETIMEDOUT)))
	h := r.client(r.echo())
	for range 2 {
		r.failsWith(r.Write(h, []byte("x")), kind.Timeout, "timed out")
		if st := r.status(h); st.Write != "failed" || st.WriteError.Errno != "ETIMEDOUT" {
			t.Errorf("the status is %+v, want Write failed with ETIMEDOUT", st)
		}
	}
}
