package session_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// TestConversationMadeAtOnce makes all calls of a conversation before one of them runs. Then it
// starts the calls in a random order. Their results must be those of calls that run one by one, in
// the order in which they were made.
func TestConversationMadeAtOnce(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			// so that the Close does not cancel a slow handshake
			r.SetStallTimeout(testkit.Patience)
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
			late := r.Write(1, nil) // it must fail, because the Close was made before
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
				t.Errorf("Read returned %q, want a beginning of \"hell\"", got)
			}
			if got := started[7].ok(); got != 0 {
				t.Errorf("Close returned %v, want 0", got)
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
		t.Error("PeerCertSubject says that it waits, but all earlier calls have ended")
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
		// TEST-NET-1: this machine does not have the address.
		accept := r.Accept(ctx, "192.0.2.1", 1)
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
		t.Errorf("the Read on the other handle returned %q, want \"two\"", got)
	}
	if got := string(read.ok().([]byte)); got != "one" {
		t.Errorf("the Read that waited returned %q, want \"one\"", got)
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
		t.Errorf("while a Write waits, a Read returned %q, want \"x\"", got)
	}
	g.release <- nil
	write.ok()
}

// TestLastErrorTakesItsTurn: LastError waits for the call that was made before it, and returns the
// error of that call.
func TestLastErrorTakesItsTurn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if r.lastError() != "" {
		t.Error("LastError of a new session is not empty")
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

// TestLastErrorDoesNotWaitForEver: if stallTimeout passes and none of the earlier calls ends,
// LastError returns, and these calls go on. So a Read that waits for its peer does not stop
// LastError.
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
		t.Fatal("both errors have the same text, so this test cannot tell one from the " +
			"other")
	}
	r.ok(r.CloseServerContext(r.server()))
	if got := r.lastError(); got != b {
		t.Errorf("LastError is %q, want %q", got, b)
	}
	r.Fail(&session.Error{Kind: kind.Params, Why: "from above"})
	if got := r.lastError(); got != "from above" {
		t.Errorf("LastError is %q, want \"from above\"", got)
	}
	if got := other.lastError(); got != "" {
		t.Errorf("the error has reached another session: %q", got)
	}
}
