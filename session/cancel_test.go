package session_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

const byCaller = "cancelled by the caller"

// The function cancelled checks the error of a call that Cancel has ended.
func cancelled(t *testing.T, g *running) {
	t.Helper()
	if e := g.fails(kind.Cancelled); e.Why != byCaller {
		t.Errorf("the reason is %q, want %q", e.Why, byCaller)
	}
}

func TestCancelBeforeRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port := r.echo()
	h, ctx := r.client(port), r.server()
	for name, c := range map[string]*session.Call{
		"NewClient": r.NewClient("localhost", port),
		"Read":      r.Read(h, 1),
		"Write":     r.Write(h, []byte("x")),
		"Accept":    r.Accept(ctx, "127.0.0.1", testkit.Port(t)),
	} {
		c.Cancel()
		c.Cancel()
		t.Log(name)
		cancelled(t, r.start(c))
	}
	// The cancelled Write never began, so the connection still works.
	r.ok(r.Write(h, []byte("y")))
	if got := string(r.ok(r.Read(h, 1)).([]byte)); got != "y" {
		t.Errorf("read %q, want \"y\"", got)
	}
}

func TestCancelWhileWaitingForEarlierCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.handle(r.NewClient("localhost", testkit.Silent(t)))
	handshake := r.start(r.Handshake(h))
	first, second := r.start(r.Read(h, 1)), r.start(r.Read(h, 1))
	first.Cancel()
	cancelled(t, first)
	if second.ended() || handshake.ended() {
		t.Error("a call that was not cancelled has ended")
	}
	handshake.Cancel()
	cancelled(t, handshake)
	second.fails(kind.State)
}

// TestCancelKeepsTheOrder: of three Writes, the second is cancelled. The third still waits for the
// first.
func TestCancelKeepsTheOrder(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	h := r.client(r.echo())
	a := r.start(r.Write(h, []byte("a")))
	await(t, g.first(), "the first Write")
	b := r.start(r.Write(h, []byte("b")))
	c := r.start(r.Write(h, []byte("c")))
	b.Cancel()
	cancelled(t, b)
	select {
	case <-g.arrived:
		// If two Writes overlap, fakeengine fails the test, too.
		t.Fatal("the third Write has begun before the first ended")
	case <-time.After(50 * time.Millisecond): // in this time the third Write must not begin
	}
	g.release <- nil
	a.ok()
	await(t, g.first(), "the third Write")
	g.release <- nil
	c.ok()
	got := r.ok(r.Read(h, 1)).([]byte)
	got = append(got, r.ok(r.Read(h, 1)).([]byte)...)
	if string(got) != "ac" {
		t.Errorf("the peer got %q, want ac", got)
	}
}

func TestCancelInTheMiddle(t *testing.T) {
	t.Parallel()
	t.Run("connect", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		g := r.start(r.NewClient("127.0.0.1", testkit.Unanswered(t)))
		behind := r.start(r.Handshake(1))
		g.Cancel()
		cancelled(t, g)
		behind.fails(kind.Handle)
	})
	t.Run("Handshake", func(t *testing.T) {
		t.Parallel()
		g := newGate(fakeengine.Handshake)
		r := newRig(t, g.install)
		h := r.handle(r.NewClient("localhost", r.echo()))
		c := r.start(r.Handshake(h))
		await(t, g.first(), "the handshake")
		c.Cancel()
		cancelled(t, c)
		r.fails(r.Handshake(h), kind.State)
		r.ok(r.Close(h))
	})
	t.Run("Read, and the next Read misses nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.client(r.echo())
		for range 20 {
			c := r.start(r.Read(h, 10))
			r.ok(r.Handshake(h))
			c.Cancel()
			cancelled(t, c)
		}
		r.ok(r.Write(h, []byte("z")))
		if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "z" {
			t.Errorf("read %q, want \"z\"", got)
		}
	})
	t.Run("Write of which some is sent breaks the outgoing stream", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		sent := make(chan struct{})
		h := r.client(testkit.Serve(t, func(nc net.Conn) {
			c := r.tlsServer(nc)
			c.Read(make([]byte, 1))
			c.Write([]byte("in"))
			close(sent)
			<-t.Context().Done()
		}))
		c := r.start(r.Write(h, make([]byte, 16<<20)))
		await(t, sent, "the first bytes")
		c.Cancel()
		cancelled(t, c)
		r.fails(r.Write(h, []byte("x")), kind.State)
		if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "in" {
			t.Errorf("a Read after the cancelled Write gives %q, want \"in\"", got)
		}
		r.ok(r.Close(h))
	})
	t.Run("Accept, and the next one works", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ctx, port := r.server(), testkit.Port(t)
		c := r.start(r.Accept(ctx, "127.0.0.1", port))
		// The client waits until the Accept listens, and does no handshake. So the Accept
		// still waits when it is cancelled.
		dialTCP(t, port)
		c.Cancel()
		cancelled(t, c)
		next := r.start(r.Accept(ctx, "127.0.0.1", port))
		r.dial(port)
		r.ok(r.Handshake(next.ok().(session.Handle)))
	})
	t.Run("LastError answers at once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.client(r.echo())
		read := r.start(r.Read(h, 1))
		last := r.LastError()
		last.Cancel()
		r.start(last).wait() // LastError may return the text, or fail with kind cancelled
		if read.ended() {
			t.Error("the Cancel of LastError has ended the Read, too")
		}
	})
	t.Run("Close closes at once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.client(r.echo())
		read := r.start(r.Read(h, 1))
		c := r.Close(h)
		c.Cancel()
		r.ok(c)
		read.fails(kind.Cancelled)
		r.fails(r.Close(h), kind.Handle)
	})
	t.Run("SetCaBundle keeps the old store", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		first := r.SetCaBundle(r.ca.File)
		second := r.SetCaBundle("/nonexistent")
		second.Cancel()
		client := r.NewClient("localhost", r.echo())
		cancelled(t, r.start(second))
		r.ok(first)
		r.ok(client)
		r.ok(r.Handshake(1))
	})
}

// TestCancelIsTooLate: Cancel does not change a call that has ended.
func TestCancelIsTooLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.start(r.NewClient("localhost", r.echo()))
	h := c.ok().(session.Handle)
	c.Cancel()
	r.ok(r.Handshake(h))
}

// TestCancelledListenDoesNotEndOtherAccepts: the Accept that opens the listener is cancelled during
// the look-up of the address. An Accept that waits for this listener then does its own look-up. The
// test counts look-ups, so it is not parallel.
func TestCancelledListenDoesNotEndOtherAccepts(t *testing.T) {
	r := newRig(t)
	ctx, port := r.server(), testkit.Port(t)
	before, name := lookups.Load(), slowName()
	a := r.start(r.Accept(ctx, name, port))
	testkit.Until(t, "the look-up has begun", func() bool { return lookups.Load() > before })
	b := r.start(r.Accept(ctx, name, port))
	runtime.Gosched() // so that b probably waits for the listener that a opens
	before = lookups.Load()
	a.Cancel()
	cancelled(t, a)
	testkit.Until(t, "the other Accept has begun its own look-up", func() bool {
		return b.ended() || lookups.Load() > before
	})
	if b.ended() {
		t.Fatalf("the Accept that was not cancelled has ended: %v", b.err)
	}
	b.Cancel()
	cancelled(t, b)
}
