package session_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// The tests of Wait use connections without a data channel, unless they say so.

// waitFor makes a Wait without a timeout, which must return the handle.
func (r *rig) waitFor(want session.Handle) {
	r.t.Helper()
	if h := r.ok(r.Wait(-1)); h != want {
		r.t.Errorf("Wait gives %v, want %d", h, want)
	}
}

// nothing makes a Wait, which must find nothing.
func (r *rig) nothing() {
	r.t.Helper()
	if h := r.ok(r.Wait(0)); h != session.Handle(0) {
		r.t.Errorf("Wait gives %v, want 0", h)
	}
}

func (r *rig) watch(h session.Handle) session.Handle {
	r.t.Helper()
	r.ok(r.SetOption(h, "watch", "1"))
	return h
}

// A puppet is a TLS server that the test controls. Each element is a text that it sends. "" ends
// the connection.
func (r *rig) puppet() (port int, says chan<- string) {
	words := make(chan string, 100)
	port = testkit.Serve(r.t, func(nc net.Conn) {
		c := r.tlsServer(nc)
		if c.Handshake() != nil {
			return
		}
		for w := range words {
			if w == "cut" {
				return
			}
			if w == "" {
				c.CloseWrite()
				io.Copy(io.Discard, c)
				return
			}
			c.Write([]byte(w))
		}
	})
	r.t.Cleanup(func() { close(words) })
	return port, words
}

func TestWaitGivesTheConnectionWhoseReadWouldNotWait(t *testing.T) {
	t.Parallel()
	for name, newRig := range map[string]func(*testing.T) *rig{
		"openssl":    func(t *testing.T) *rig { return newRealRig(t) },
		"crypto/tls": func(t *testing.T) *rig { return newRig(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			port, says := r.puppet()
			r.watch(r.client(port))
			other, speaks := r.puppet()
			h := r.watch(r.client(other))
			r.nothing()
			w := r.start(r.Wait(-1))
			speaks <- "hello"
			if got := w.ok(); got != h {
				t.Fatalf("Wait gives %v, want %d", got, h)
			}
			r.waitFor(h) // as long as no Read comes
			got := ""
			for got != "hello" { // in pieces, and none is lost
				got += string(r.ok(r.Read(h, 2)).([]byte))
			}
			r.nothing()
			speaks <- ""
			r.waitFor(h)
			for range 2 {
				if data := r.ok(r.Read(h, 10)).([]byte); len(data) > 0 {
					t.Errorf("read %q, want the end", data)
				}
				r.waitFor(h)
			}
			r.ok(r.Close(h))
			says <- "cut"
			r.waitFor(1)
			r.fails(r.Read(1, 10), kind.IO)
			r.waitFor(1)
			r.ok(r.Close(1))
			r.nothing()
		})
	}
}

// TestAReadBehindAWaitLosesNothing: much data is read between Waits, in pieces of all sizes.
func TestAReadBehindAWaitLosesNothing(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	data := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), 10000)
	port := testkit.Serve(t, func(nc net.Conn) {
		c := r.tlsServer(nc)
		c.Write(data)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	h := r.watch(r.client(port))
	var got []byte
	for size := 1; ; size = size%5000 + 7 {
		r.waitFor(h)
		part := r.ok(r.Read(h, size)).([]byte)
		if len(part) > size {
			t.Fatalf("a Read of %d gives %d bytes", size, len(part))
		}
		if len(part) == 0 {
			break
		}
		got = append(got, part...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes have come, %d were sent", len(got), len(data))
	}
}

func TestReadyHandlesTakeTurns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var handles []session.Handle
	for range 200 {
		h := r.handle(r.NewClient("localhost", r.echo()))
		handles = append(handles, r.watch(h)) // ready, because a Read fails at once
	}
	for round := range 3 {
		for _, h := range handles {
			if got := r.ok(r.Wait(-1)); got != h {
				t.Fatalf("round %d: got %v, want %d", round, got, h)
			}
		}
	}
}

// TestABusyHandleStarvesNoOther: one handle always has data, and the other still gets its turn.
func TestABusyHandleStarvesNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	flood := testkit.Serve(t, func(nc net.Conn) {
		c := r.tlsServer(nc)
		for {
			if _, err := c.Write(make([]byte, 16384)); err != nil {
				return
			}
		}
	})
	busy := r.watch(r.client(flood))
	port, says := r.puppet()
	quiet := r.watch(r.client(port))
	for range 20 {
		says <- "x"
		r.waitFor2(busy, quiet)
		r.ok(r.Read(quiet, 1))
	}
}

// waitFor2 reads from the first handle until the second is ready.
func (r *rig) waitFor2(busy, quiet session.Handle) {
	r.t.Helper()
	end := time.Now().Add(testkit.Patience)
	for time.Now().Before(end) {
		switch h := r.ok(r.Wait(-1)); h {
		case quiet:
			return
		case busy:
			r.ok(r.Read(busy, 1<<20))
		default:
			r.t.Fatalf("Wait gives %v", h)
		}
	}
	r.t.Fatal("the quiet handle never has its turn")
}

func TestAWaitEndsWhenItsTimeIsUpOrItIsCancelled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.watch(r.client(r.echo()))
	for _, bound := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond} {
		began := time.Now()
		if got := r.ok(r.Wait(bound)); got != session.Handle(0) {
			t.Errorf("Wait gives %v, want 0", got)
		}
		if took := time.Since(began); took < bound {
			t.Errorf("a Wait of %v has ended after %v", bound, took)
		}
	}
	for _, bound := range []time.Duration{-1, -time.Hour, time.Hour} {
		w := r.start(r.Wait(bound))
		w.Cancel()
		w.fails(kind.Cancelled)
	}
	// A Read still gets data that comes later.
	read := r.start(r.Read(h, 10))
	r.ok(r.Write(h, []byte("x")))
	if got := string(read.ok().([]byte)); got != "x" {
		t.Errorf("read %q", got)
	}
	w := r.start(r.Wait(-1))
	r.End()
	w.fails(kind.Cancelled)
}

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
	r.nothing()
	r.watch(h)
	r.waitFor(h)
	ctx := r.server()
	if got := r.fact(ctx, "watch"); got != "0" {
		t.Errorf("watch is %q", got)
	}
	if r.watch(ctx); r.fact(ctx, "watch") != "1" {
		t.Errorf("watch is %q", r.fact(ctx, "watch"))
	}
	for _, bad := range []string{"", "2", "on"} {
		for _, h := range []session.Handle{h, ctx} {
			e := r.fails(r.SetOption(h, "watch", bad), kind.Params)
			if !strings.Contains(e.Why, "0 or 1") {
				t.Errorf("watch %q: %v", bad, e)
			}
		}
	}
	r.ok(r.Close(h))
	r.fails(r.SetOption(h, "watch", "1"), kind.Handle)
	r.nothing()
	r.ok(r.CloseServerContext(ctx))
	r.nothing()
}

// TestACloseOfAWatchedConnectionIsNotHeldUp: the read-ahead of a Wait does not delay it.
func TestACloseOfAWatchedConnectionIsNotHeldUp(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		r := newRig(t)
		port, says := r.puppet()
		h := r.watch(r.client(port))
		r.nothing()
		if !silent {
			says <- "x"
			r.waitFor(h)
		}
		w := r.start(r.Wait(-1))
		if silent {
			r.ok(r.Close(h))
			w.Cancel()
			w.fails(kind.Cancelled)
		} else {
			w.ok()
			r.ok(r.Close(h))
		}
		r.End()
	}
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
	r.nothing()
	w := r.start(r.Wait(-1))
	g.release <- nil
	shaking.ok()
	says <- "x"
	if got := w.ok(); got != h {
		t.Errorf("Wait gives %v, want %d", got, h)
	}
	if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "x" {
		t.Errorf("read %q", got)
	}
}

// TestAConnectionWithADataChannelIsItsCallersToPoll: it takes no part in a Wait.
func TestAConnectionWithADataChannelIsItsCallersToPoll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port, says := r.puppet()
	h, caller := r.channel(port)
	r.watch(h)
	says <- "hello"
	r.nothing()
	if got := string(receive(t, caller, 5)); got != "hello" {
		t.Errorf("received %q", got)
	}
	r.nothing()
}

// arrival makes a client that waits for an Accept.
func (r *rig) arrival(port int) *tls.Conn {
	r.t.Helper()
	c := r.dial(port)
	r.t.Cleanup(func() { c.Close() })
	return c
}

func TestWaitGivesTheContextForWhichAClientWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	quiet, _ := r.listener()
	ctx, port := r.listener()
	r.watch(quiet)
	r.watch(ctx)
	r.nothing()
	w := r.start(r.Wait(-1))
	r.arrival(port)
	if got := w.ok(); got != ctx {
		t.Fatalf("Wait gives %v, want %d", got, ctx)
	}
	r.arrival(port)
	for range 2 {
		r.waitFor(ctx)
		r.ok(r.Accept(ctx, "", 0))
	}
	r.nothing()
	// A client whose handshake has failed makes the context ready too, because an Accept would
	// not wait.
	nc := dialTCP(t, port)
	fmt.Fprint(nc, "this is not TLS\n")
	r.waitFor(ctx)
	r.fails(r.Accept(ctx, "", 0), kind.Handshake)
	r.nothing()
}

// TestWhatIsKnownIsReadyAtOnce: after a Read has told the end or an error, a Wait need not look.
func TestWhatIsKnownIsReadyAtOnce(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"", "cut"} {
		r := newRig(t)
		port, says := r.puppet()
		h := r.watch(r.client(port))
		says <- how
		r.waitFor(h)
		for range 20 {
			if read := r.Read(h, 1); how == "cut" {
				r.fails(read, kind.IO)
			} else if data := r.ok(read).([]byte); len(data) > 0 {
				t.Errorf("read %q, want the end", data)
			}
			if got := r.ok(r.Wait(0)); got != h {
				t.Fatalf("Wait gives %v, want %d", got, h)
			}
		}
		r.End()
	}
}

// TestAHandleThatIsBeingClosedIsNotReady, whatever its Close waits for.
func TestAHandleThatIsBeingClosedIsNotReady(t *testing.T) {
	t.Parallel()
	t.Run("connection", func(t *testing.T) {
		t.Parallel()
		g := newGate(fakeengine.Write)
		r := newRig(t, g.install)
		r.SetGrace(time.Hour)
		port, says := r.puppet()
		h := r.watch(r.client(port))
		says <- ""
		r.waitFor(h)
		r.ok(r.Read(h, 1)) // it is at its end
		write := r.start(r.Write(h, []byte("x")))
		await(t, g.first(), "the Write")
		r.waitFor(h) // of no matter to a Read
		closing := r.start(r.Close(h))
		r.nothing()
		g.release <- nil
		write.ok()
		closing.ok()
		r.nothing()
	})
	t.Run("context", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.SetGrace(time.Hour)
		ctx, port := r.listener()
		r.watch(ctx)
		quiet := r.ok(r.Listen(ctx, local, 0)).(int)
		accept := r.start(r.Accept(ctx, local, quiet))
		r.arrival(port)
		r.waitFor(ctx)
		closing := r.start(r.CloseServerContext(ctx))
		r.nothing()
		accept.Cancel()
		accept.fails(kind.Cancelled)
		closing.ok()
		r.nothing()
	})
}

// TestAWaitBesideAReadReadsNothing: what comes is the Read's.
func TestAWaitBesideAReadReadsNothing(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Read)
	r := newRig(t, g.install)
	port, says := r.puppet()
	h := r.watch(r.client(port))
	read := r.start(r.Read(h, 10))
	await(t, g.first(), "the Read")
	says <- "x"
	r.nothing()
	if n := len(g.arrived); n != 0 {
		t.Errorf("a Wait reads beside a Read")
	}
	g.release <- nil
	if got := string(read.ok().([]byte)); got != "x" {
		t.Errorf("read %q", got)
	}
}

// TestAHandleThatHasEndedIsForgotten, so that a Wait has no more to look at.
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
		t.Errorf("%d handles are watched after their end", n)
	}
}
