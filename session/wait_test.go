package session_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// The tests of Wait use connections without a data channel, unless they say so.

// waitFor makes a Wait without a timeout, and checks that it returns the handle.
func (r *rig) waitFor(want session.Handle) {
	r.t.Helper()
	if h := r.ok(r.Wait(-1)); h != want {
		r.t.Errorf("Wait gives %v, want %d", h, want)
	}
}

// noneReady makes a Wait of 0 ms, and checks that no handle is ready.
func (r *rig) noneReady() {
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

// puppet starts a TLS server that the test controls. It sends each text of says. "" ends the
// connection with close_notify, and "cut" ends it without close_notify.
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
			r.noneReady()
			w := r.start(r.Wait(-1))
			speaks <- "hello"
			if got := w.ok(); got != h {
				t.Fatalf("Wait gives %v, want %d", got, h)
			}
			r.waitFor(h) // the handle stays ready until a Read
			got := ""
			for got != "hello" { // several Reads get the data that was read ahead
				got += string(r.ok(r.Read(h, 2)).([]byte))
			}
			r.noneReady()
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
			r.noneReady()
		})
	}
}

func TestReadyHandlesTakeTurns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var handles []session.Handle
	for range 200 {
		h := r.handle(r.NewClient("localhost", r.echo()))
		// The handle is ready, because before the handshake a Read would fail at once.
		handles = append(handles, r.watch(h))
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
		r.readUntilReady(busy, quiet)
		r.ok(r.Read(quiet, 1))
	}
}

// readUntilReady reads from the busy handle until the quiet one is ready.
func (r *rig) readUntilReady(busy, quiet session.Handle) {
	r.t.Helper()
	end := time.Now().Add(testkit.Patience)
	for time.Now().Before(end) {
		switch h := r.ok(r.Wait(-1)); h {
		case quiet:
			return
		case busy:
			r.ok(r.Read(busy, 1<<20))
		default:
			r.t.Fatalf("Wait gives %v, want %d or %d", h, busy, quiet)
		}
	}
	r.t.Fatal("Wait has never returned the quiet handle")
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
			t.Errorf("a Wait of %v has ended too early, after %v", bound, took)
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
		t.Errorf("Read returned %q, want \"x\"", got)
	}
	w := r.start(r.Wait(-1))
	r.End()
	w.fails(kind.Cancelled)
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
	r.noneReady()
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
	r.noneReady()
	// A client whose handshake has failed makes the context ready too, because an Accept would
	// not wait.
	nc := dialTCP(t, port)
	fmt.Fprint(nc, "this is not TLS\n")
	r.waitFor(ctx)
	r.fails(r.Accept(ctx, "", 0), kind.Handshake)
	r.noneReady()
}
