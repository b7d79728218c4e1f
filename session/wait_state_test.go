package session_test

import (
	"strings"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/session"
)

// The option watch of a handle, and the state of the handle, decide whether a Wait returns it.

func TestWatchHoldsFromOneCallToTheNext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port, says := r.puppet()
	h := r.client(port)
	says <- "x"
	w := r.start(r.Wait(-1)) // no handle is watched yet
	r.watch(h)
	if got := w.ok(); got != h {
		t.Errorf("Wait gives %v, want %d", got, h)
	}
	r.ok(r.SetOption(h, "watch", "0"))
	r.noneReady()
	r.watch(h)
	r.waitFor(h)
	ctx := r.server()
	if got := r.fact(ctx, "watch"); got != "0" {
		t.Errorf("the option watch of a new context is %q, want 0", got)
	}
	if r.watch(ctx); r.fact(ctx, "watch") != "1" {
		t.Errorf("the option watch was set, but is %q, want 1", r.fact(ctx, "watch"))
	}
	for _, bad := range []string{"", "2", "on"} {
		for _, h := range []session.Handle{h, ctx} {
			e := r.fails(r.SetOption(h, "watch", bad), kind.Params)
			if !strings.Contains(e.Why, "0 or 1") {
				t.Errorf("watch set to %q: the error is %v, want \"0 or 1\" in "+
					"it", bad, e)
			}
		}
	}
	r.ok(r.Close(h))
	r.fails(r.SetOption(h, "watch", "1"), kind.Handle)
	r.noneReady()
	r.ok(r.CloseServerContext(ctx))
	r.noneReady()
}

func TestAConnectionBeforeItsHandshakeIsReadyButNotDuringIt(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Handshake)
	r := newRig(t, g.install)
	port, says := r.puppet()
	h := r.watch(r.handle(r.NewClient("localhost", port)))
	r.waitFor(h)
	r.fails(r.Read(h, 1), kind.State)
	shaking := r.start(r.Handshake(h))
	await(t, g.first(), "the handshake")
	r.noneReady()
	w := r.start(r.Wait(-1))
	g.release <- nil
	shaking.ok()
	says <- "x"
	if got := w.ok(); got != h {
		t.Errorf("Wait gives %v, want %d", got, h)
	}
	if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "x" {
		t.Errorf("Read returned %q, want \"x\"", got)
	}
}

// TestAConnectionWithADataChannelIsItsCallersToPoll: a connection with a data channel takes no part
// in a Wait.
func TestAConnectionWithADataChannelIsItsCallersToPoll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port, says := r.puppet()
	h, caller := r.channel(port)
	r.watch(h)
	says <- "hello"
	r.noneReady()
	if got := string(receive(t, caller, 5)); got != "hello" {
		t.Errorf("the caller has received %q, want \"hello\"", got)
	}
	r.noneReady()
}

// TestAHandleThatIsBeingClosedIsNotReady: while a Close waits for earlier calls, its handle is not
// ready.
func TestAHandleThatIsBeingClosedIsNotReady(t *testing.T) {
	t.Parallel()
	t.Run("connection", func(t *testing.T) {
		t.Parallel()
		g := newGate(fakeengine.Write)
		r := newRig(t, g.install)
		r.SetStallTimeout(time.Hour)
		port, says := r.puppet()
		h := r.watch(r.client(port))
		says <- ""
		r.waitFor(h)
		r.ok(r.Read(h, 1)) // the Read returns the end of data
		write := r.start(r.Write(h, []byte("x")))
		await(t, g.first(), "the Write")
		r.waitFor(h) // a Read would return the end, although the Write waits
		closing := r.start(r.Close(h))
		r.noneReady()
		g.release <- nil
		write.ok()
		closing.ok()
		r.noneReady()
	})
	t.Run("context", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.SetStallTimeout(time.Hour)
		ctx, port := r.listener()
		r.watch(ctx)
		quiet := r.ok(r.Listen(ctx, local, 0)).(int)
		accept := r.start(r.Accept(ctx, local, quiet))
		r.arrival(port)
		r.waitFor(ctx)
		closing := r.start(r.CloseServerContext(ctx))
		r.noneReady()
		accept.Cancel()
		accept.fails(kind.Cancelled)
		closing.ok()
		r.noneReady()
	})
}

// TestAHandleThatHasEndedIsForgotten: after its Close, a handle is no longer watched.
func TestAHandleThatHasEndedIsForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.watch(r.client(r.echo()))
	ctx := r.watch(r.server())
	if n := r.Watched(); n != 2 {
		t.Errorf("%d handles are watched, want 2", n)
	}
	r.ok(r.Close(h))
	r.ok(r.CloseServerContext(ctx))
	if n := r.Watched(); n != 0 {
		t.Errorf("%d handles are watched after they were closed, want 0", n)
	}
}
