package session_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// TestConversationMadeAtOnce makes a whole conversation before any call runs. Then it runs the
// calls in a random order.
func TestConversationMadeAtOnce(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.SetGrace(testkit.Patience) // a handshake may be slow
			port := r.echo()
			want := []any{session.Handle(1), 0, 5, 6, "/CN=localhost", "TLSv1.3"}
			calls := []*session.Call{
				r.NewClient("localhost", port),
				r.Handshake(1),
				r.Write(1, []byte("hello")),
				r.Write(1, []byte(" world")),
				r.PeerCertSubject(1),
				r.ConnectionVersion(1),
				r.Read(1, 4),
				r.Close(1),
			}
			late := r.Write(1, nil) // no call can be made after a Close
			started := make([]*running, len(calls))
			for _, i := range rand.Perm(len(calls)) {
				started[i] = r.start(calls[i])
			}
			for i, w := range want {
				if got := started[i].ok(); got != w {
					t.Errorf("call %d returned %v, want %v", i, got, w)
				}
			}
			if got := started[6].ok().([]byte); !bytes.HasPrefix([]byte("hell"), got) ||
				len(got) == 0 {
				t.Errorf("Read returned %q", got)
			}
			if got := started[7].ok(); got != 0 {
				t.Errorf("Close returned %v", got)
			}
			r.fails(late, kind.Handle)
		})
	}
}

func TestCallsWaitForThoseMadeBefore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	connect := r.NewClient("localhost", r.echo())
	handshake := r.Handshake(1)
	write, read := r.start(r.Write(1, []byte("x"))), r.start(r.Read(1, 1))
	subject := r.PeerCertSubject(1)
	if !subject.Waits() {
		t.Error("PeerCertSubject does not say that it waits for the Handshake")
	}
	r.ok(connect)
	if write.ended() || read.ended() {
		t.Fatal("Write or Read did not wait for the Handshake")
	}
	r.ok(handshake)
	write.ok()
	read.ok()
	if subject.Waits() {
		t.Error("PeerCertSubject says that it waits, but nothing is left to wait for")
	}
	r.ok(subject)
}

func TestFailureReachesCallsThatWaited(t *testing.T) {
	t.Parallel()
	t.Run("of NewClient", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		connect := r.NewClient("127.0.0.1", testkit.Port(t))
		later := []*session.Call{
			r.SetInsecureSkipVerify(1, true), r.Handshake(1),
			r.Write(1, []byte("x")), r.Read(1, 1), r.Close(1),
		}
		r.fails(connect, kind.Connect)
		for _, c := range later {
			r.fails(c, kind.Handle)
		}
	})
	t.Run("of Handshake", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(e *fakeengine.Engine, _ *session.Config) { e.System = nil })
		connect, handshake := r.NewClient("localhost", r.echo()), r.Handshake(1)
		later := []*session.Call{r.Write(1, []byte("x")), r.Read(1, 1), r.Handshake(1)}
		r.ok(connect)
		r.fails(handshake, kind.Verify)
		for _, c := range later {
			r.fails(c, kind.State)
		}
		r.ok(r.Close(1))
	})
	t.Run("of NewServerContext", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		load := r.NewServerContext("/nonexistent", "/nonexistent")
		accept := r.Accept(1, "127.0.0.1", testkit.Port(t))
		onAccepted := r.Read(2, 1)
		closing := r.CloseServerContext(1)
		r.fails(load, kind.File)
		r.fails(accept, kind.Handle)
		r.fails(onAccepted, kind.Handle)
		r.fails(closing, kind.Handle)
	})
	t.Run("of Accept", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ctx := r.server()
		accept := r.Accept(ctx, "192.0.2.1",
			1) // TEST-NET-1; this machine does not have the address
		read, closing := r.Read(2, 1), r.Close(2)
		r.fails(accept, kind.Connect)
		r.fails(read, kind.Handle)
		r.fails(closing, kind.Handle)
	})
}

func TestWaitingReadHoldsUpNeitherWriteNorOtherHandles(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Read)
	r := newRig(t, g.install)
	port := r.echo()
	a, b := r.client(port), r.client(port)
	ctx := r.server()
	read := r.start(r.Read(a, 100))
	await(t, g.first(), "the Read to wait")

	r.ok(r.Write(a, []byte("one")))
	r.ok(r.Write(b, []byte("two")))
	r.ok(r.PeerCertSubject(a))
	r.ok(r.Handshake(a))
	r.ok(r.CloseServerContext(ctx))
	second := r.start(r.Read(b, 100))
	await(t, g.first(), "the other handle's Read")
	g.release <- nil
	g.release <- nil
	if got := string(second.ok().([]byte)); got != "two" {
		t.Errorf("read %q", got)
	}
	if got := string(read.ok().([]byte)); got != "one" {
		t.Errorf("read %q", got)
	}
}

func TestWaitingHandshakeHoldsUpNoOtherHandle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	silent := r.handle(r.NewClient("localhost", testkit.Silent(t)))
	stuck := r.start(r.Handshake(silent))
	h := r.client(r.echo())
	r.ok(r.Close(h))
	if stuck.ended() {
		t.Fatal("the handshake with a silent peer has ended")
	}
}

func TestWaitingWriteHoldsUpNoRead(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	h := r.client(testkit.Serve(t, greet(r)))
	write := r.start(r.Write(h, []byte("held up")))
	await(t, g.first(), "the Write to wait")
	if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "x" {
		t.Errorf("read %q", got)
	}
	g.release <- nil
	write.ok()
}

func TestWritesAndReadsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(r.echo())
	const n = 50
	var writes, reads []*session.Call
	for i := range n {
		writes = append(writes, r.Write(h, fmt.Appendf(nil, "%03d\n", i)))
		reads = append(reads, r.Read(h, 4))
	}
	// The calls are started in any order. They run in the order in which they were made.
	got := make([]*running, n)
	for _, i := range rand.Perm(n) {
		r.start(writes[i])
		got[i] = r.start(reads[i])
	}
	var all []byte
	for _, g := range got {
		all = append(all, g.ok().([]byte)...)
	}
	for len(all) < 4*n {
		all = append(all, r.ok(r.Read(h, 4)).([]byte)...)
	}
	for i := range n {
		if want := fmt.Sprintf("%03d\n", i); string(all[4*i:4*i+4]) != want {
			t.Fatalf("message %d is %q", i, all[4*i:4*i+4])
		}
	}
}

// TestLargeWrite: the largest blob arrives whole, for all sizes of pieces.
func TestLargeWrite(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(r.echo())
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	write := r.start(r.Write(h, data))
	var got []byte
	for len(got) < len(data) {
		p := r.ok(r.Read(h, 1<<24)).([]byte)
		if len(p) == 0 {
			t.Fatal("end of data")
		}
		got = append(got, p...)
	}
	if n := write.ok(); n != len(data) {
		t.Errorf("Write returned %v", n)
	}
	if !bytes.Equal(got, data) {
		t.Error("other data came back")
	}
}

func TestReadIsBoundedByItsMaximum(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(r.echo())
	r.ok(r.Write(h, []byte("abcdef")))
	if got := r.ok(r.Read(h, 1)).([]byte); string(got) != "a" {
		t.Errorf("Read(1) returned %q", got)
	}
}

func TestEndOfData(t *testing.T) {
	t.Parallel()
	t.Run("close_notify is an empty Read each time, and Write goes on", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		got := make(chan string, 1)
		h := r.client(testkit.Serve(t, func(nc net.Conn) {
			c := r.tlsServer(nc)
			c.Handshake()
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			got <- string(b)
		}))
		for range 3 {
			if p := r.ok(r.Read(h, 10)).([]byte); p == nil || len(p) != 0 {
				t.Errorf("Read returned %v", p)
			}
		}
		r.ok(r.Write(h, []byte("still here")))
		r.ok(r.Close(h))
		if s := <-got; s != "still here" {
			t.Errorf("the peer got %q", s)
		}
	})
	t.Run("without close_notify is an error", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.client(testkit.Serve(t, func(nc net.Conn) {
			c := r.tlsServer(nc)
			c.Write([]byte("half a mess"))
			// serve closes nc, but not c.
		}))
		r.ok(r.Read(h, 100))
		r.fails(r.Read(h, 100), kind.IO)
		r.ok(r.Close(h))
	})
}

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

// TestCloseEndsWhatGoesOnWaiting: after stallTimeout the waiting calls end with kind cancelled, and
// the Close succeeds.
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
				<-r.t.Context().Done() // and reads no more
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
				t.Errorf("Close gave the calls before it only %v", d)
			}
			for i, w := range started {
				if !w.ended() {
					// The Close has ended the call, but the call's goroutine
					// may be late.
					w.wait()
				}
				if _, err := w.wait(); err == nil {
					t.Errorf("waiting call %d succeeded", i)
				} else if e := err.(*session.Error); e.Kind != kind.Cancelled {
					t.Errorf("waiting call %d: %v (%s), want kind cancelled", i,
						e, e.Kind)
				}
			}
		})
	}
}

// TestCloseIsPatientWithProgress: a Close waits as long as the calls before it go on ending.
func TestCloseIsPatientWithProgress(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Read)
	r := newRig(t, g.install)
	r.SetGrace(4 * time.Second)
	h := r.client(r.echo())
	r.ok(r.Write(h, []byte("abcdefghijkl")))
	var reads []*running
	for range 12 {
		reads = append(reads, r.start(r.Read(h, 1)))
	}
	closing := r.start(r.Close(h))
	// One Read ends every 400 ms: 4.8 s altogether, with a stallTimeout of 4 s.
	for _, c := range reads {
		await(t, g.first(), "the next Read")
		time.Sleep(400 * time.Millisecond) // the promise is about time
		g.release <- nil
		c.ok()
	}
	closing.ok()
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
			t.Error("a call behind a Close waits")
		}
		r.fails(c, kind.Handle)
	}
	r.ok(closing)
	r.ok(closingCtx)
	read.fails(kind.Cancelled)
}

func TestLastErrorTakesItsTurn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if r.lastError() != "" {
		t.Error("a new session has an error")
	}
	connect := r.NewClient("127.0.0.1", testkit.Port(t))
	last := r.LastError()
	if !last.Waits() {
		t.Error("LastError does not wait for the call before it")
	}
	asked := r.start(last)
	want := r.fails(connect, kind.Connect).Error()
	if got := asked.ok(); got != want {
		t.Errorf("LastError is %q, want %q", got, want)
	}
}

func TestLastErrorDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.client(r.echo())
	first := r.fails(r.Close(99), kind.Handle)
	read := r.start(r.Read(h, 1))
	if got := r.lastError(); got != first.Error() {
		t.Errorf("LastError is %q, want %q", got, first)
	}
	if read.ended() {
		t.Error("LastError has ended a Read")
	}
}

func TestLastErrorIsTheMostRecentAndSurvivesSuccess(t *testing.T) {
	t.Parallel()
	r, other := newRig(t), newRig(t)
	a := r.fails(r.Close(7), kind.Handle).Error()
	b := r.fails(r.Close(8), kind.Handle).Error()
	if a == b {
		t.Fatal("both errors read the same")
	}
	r.ok(r.CloseServerContext(r.server()))
	if got := r.lastError(); got != b {
		t.Errorf("LastError is %q, want %q", got, b)
	}
	r.Fail(&session.Error{Kind: kind.Params, Why: "from above"})
	if got := r.lastError(); got != "from above" {
		t.Errorf("LastError is %q", got)
	}
	if got := other.lastError(); got != "" {
		t.Errorf("the error has reached another session: %q", got)
	}
}
