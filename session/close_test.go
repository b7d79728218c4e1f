package session_test

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// How a Close acts on the calls that were made before it and after it. The connections have no data
// channel.

func TestCloseSendsCloseNotify(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	end := make(chan error, 1)
	h := r.client(testkit.Serve(t, func(nc net.Conn) {
		c := r.tlsServer(nc)
		_, err := io.Copy(io.Discard, c)
		end <- err
	}))
	r.ok(r.Close(h))
	if err := <-end; err != nil {
		t.Errorf("the peer did not see close_notify: %v", err)
	}
}

func TestCloseSucceedsWhenThePeerIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(testkit.Serve(t, func(nc net.Conn) {
		r.tlsServer(nc).Handshake()
		nc.(*net.TCPConn).SetLinger(0)
	}))
	r.fails(r.Read(h, 1), kind.IO)
	r.ok(r.Close(h))
}

// TestCloseEndsWhatGoesOnWaiting: a Close waits for the earlier calls. If none of them ends within
// stallTimeout, the Close ends them with kind cancelled. The Close succeeds if its handle was made.
func TestCloseEndsWhatGoesOnWaiting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make  func(*rig) (waiting []*session.Call, close *session.Call)
		close kind.Kind
	}{
		"Read": {func(r *rig) ([]*session.Call, *session.Call) {
			h := r.client(r.echo())
			return []*session.Call{r.Read(h, 1), r.Read(h, 1)}, r.Close(h)
		}, ok},
		"Handshake and all behind it": {func(r *rig) ([]*session.Call, *session.Call) {
			h := r.handle(r.NewClient("localhost", testkit.Silent(r.t)))
			return []*session.Call{r.Handshake(h), r.Write(h, []byte("x")),
				r.Read(h, 1), r.Handshake(h)}, r.Close(h)
		}, ok},
		"connect": {func(r *rig) ([]*session.Call, *session.Call) {
			port := testkit.Unanswered(r.t)
			return []*session.Call{r.NewClient("127.0.0.1", port), r.Handshake(1)},
				r.Close(1)
		}, kind.Handle},
		"Accept, by its context": {func(r *rig) ([]*session.Call, *session.Call) {
			ctx, port := r.server(), testkit.Port(r.t)
			return []*session.Call{r.Accept(ctx, "127.0.0.1", port),
				r.Accept(ctx, "127.0.0.1", port)}, r.CloseServerContext(ctx)
		}, ok},
		"Accept, by its connection": {func(r *rig) ([]*session.Call, *session.Call) {
			ctx, port := r.server(), testkit.Port(r.t)
			return []*session.Call{r.Accept(ctx, "127.0.0.1", port)}, r.Close(2)
		}, kind.Handle},
		"Write": {func(r *rig) ([]*session.Call, *session.Call) {
			h := r.client(testkit.Serve(r.t, func(nc net.Conn) {
				r.tlsServer(nc).Handshake()
				<-r.t.Context().Done() // without a Read, so that the Write waits
			}))
			return []*session.Call{r.Write(h, make([]byte, 16<<20))}, r.Close(h)
		}, ok},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			waiting, closing := c.make(r)
			var started []*running
			for _, w := range waiting {
				started = append(started, r.start(w))
			}
			begin := time.Now()
			end := r.start(closing)
			if c.close == ok {
				end.ok()
			} else {
				end.fails(c.close)
			}
			if d := time.Since(begin); d < 200*time.Millisecond {
				t.Errorf("Close waited %v for the earlier calls, want 200ms or "+
					"more", d)
			}
			for i, w := range started {
				if !w.ended() {
					// The Close has ended the call, but the call's goroutine
					// may be late.
					w.wait()
				}
				if _, err := w.wait(); err == nil {
					t.Errorf("waiting call %d has succeeded, want kind "+
						"cancelled", i)
				} else if e := err.(*session.Error); e.Kind != kind.Cancelled {
					t.Errorf("waiting call %d: %v (%s), want kind cancelled", i,
						e, e.Kind)
				}
			}
		})
	}
}

// TestCloseIsPatientWithProgress: a Close waits for many earlier calls, if each ends less than a
// stallTimeout after the one before. The clock of the session is synctest's: it stands still while
// a goroutine runs or waits for the network. So the result does not depend on the speed of the
// machine. The timeouts of testkit use this clock, too, so only the timeout of go test ends a test
// that hangs.
func TestCloseIsPatientWithProgress(t *testing.T) {
	t.Parallel()
	port := newRig(t).echo() // outside of synctest: an Accept that waits would stop the clock
	synctest.Test(t, func(t *testing.T) {
		g := newGate(fakeengine.Read)
		r := newRig(t, g.install)
		h := r.handle(r.NewClient("127.0.0.1", port))
		// in synctest's year 2000 the certificate is not valid yet
		r.ok(r.SetInsecureSkipVerify(h, true))
		r.ok(r.Handshake(h))
		r.ok(r.Write(h, []byte("abcdefghijkl")))
		var reads []*running
		for range 12 {
			reads = append(reads, r.start(r.Read(h, 1)))
		}
		closing := r.start(r.Close(h))
		// One Read ends every 400 ms: 4.8 s altogether, with a stallTimeout of 500 ms.
		for _, c := range reads {
			testkit.Receive(t, g.arrived, "the next Read")
			time.Sleep(400 * time.Millisecond)
			g.release <- nil
			c.ok()
		}
		closing.ok()
	})
}

func TestCallsBehindCloseAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, ctx := r.client(r.echo()), r.server()
	read := r.start(r.Read(h, 1))
	closing, closingCtx := r.Close(h), r.CloseServerContext(ctx)
	for _, c := range []*session.Call{
		r.Read(h, 1), r.Write(h, nil), r.Handshake(h), r.PeerCertSubject(h),
		r.SetInsecureSkipVerify(h, true), r.Close(h),
		r.CloseServerContext(ctx), r.Accept(ctx, "127.0.0.1", 1),
	} {
		if c.Waits() {
			t.Error("a call that was made after a Close waits, want an error at once")
		}
		r.fails(c, kind.Handle)
	}
	r.ok(closing)
	r.ok(closingCtx)
	read.fails(kind.Cancelled)
}
