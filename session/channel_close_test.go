package session_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// TestHalfCloseSendsCloseNotifyAndLeavesReadingOpen: the half close is shutdown(2) of the data
// channel, or tls.Shutdown with or without a data channel.
func TestHalfCloseSendsCloseNotifyAndLeavesReadingOpen(t *testing.T) {
	t.Parallel()
	for name, shut := range map[string]func(*rig, session.Handle, *net.UnixConn){
		"shutdown(2)": func(r *rig, h session.Handle, c *net.UnixConn) { c.CloseWrite() },
		"tls.Shutdown": func(r *rig, h session.Handle, c *net.UnixConn) {
			r.ok(r.Shutdown(h))
			if st := r.status(h); st.Write != "shut" || st.Sent != 7 {
				r.t.Errorf("the status is %+v, want Write shut and Sent 7", st)
			}
			r.ok(r.Shutdown(h))
			unsendable(r.t, c)
		},
		"tls.Shutdown without a channel": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			port := r.serve(func(c *tls.Conn, _ *net.TCPConn) {
				b, err := io.ReadAll(c)
				if err != nil {
					b = []byte(err.Error())
				}
				c.Write(append([]byte("you said "), b...))
				c.CloseWrite()
			})
			if shut == nil {
				h := r.client(port)
				r.ok(r.Write(h, []byte("request")))
				r.ok(r.Shutdown(h))
				r.ok(r.Shutdown(h))
				r.fails(r.Write(h, []byte("more")), kind.State)
				got := r.ok(r.Read(h, 100)).([]byte)
				if string(got) != "you said request" {
					t.Errorf("the caller has got %q, want \"you said "+
						"request\"", got)
				}
				if st := r.status(h); st.Write != "shut" || st.Sent != 7 ||
					st.Received != 16 {
					t.Errorf("the status is %+v, want Write shut, Sent 7 "+
						"and Received 16", st)
				}
				r.ok(r.Close(h))
				return
			}
			h, c := r.channel(port)
			send(t, c, []byte("request"))
			shut(r, h, c)
			if got := rest(t, c); string(got) != "you said request" {
				t.Errorf("the caller has got %q, want \"you said request\"", got)
			}
			r.ok(r.Close(h))
			r.gone()
		})
	}
}

// TestCloseSendsAllThatWasSentBefore: a Close sends all bytes of the data channel to a slow peer,
// and then close_notify.
func TestCloseSendsAllThatWasSentBefore(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	port, got := r.sink()
	h, c := r.channel(port)
	data := random(150000)
	send(t, c, data)
	closing := r.start(r.Close(h))
	unsendable(t, c) // bytes after the Close are refused
	for range 3 {
		await(t, g.first(), "the next piece")
		if closing.ended() {
			t.Fatal("the Close has ended before all bytes were sent to the peer")
		}
		g.release <- nil
	}
	closing.ok()
	want(t, got, string(data)+"|close_notify")
	r.gone()
}

// TestACloseThatIsCancelledGivesUpWhatIsLeft: the error of a cancelled Close says how many bytes
// were sent, and the peer gets no close_notify.
func TestACloseThatIsCancelledGivesUpWhatIsLeft(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	port, got := r.sink()
	h, c := r.channel(port)
	send(t, c, []byte("lost"))
	await(t, g.first(), "the piece")
	closing := r.start(r.Close(h))
	unsendable(t, c)
	closing.Cancel()
	if e := closing.fails(kind.Cancelled); e.Op != "tls.Close" ||
		!strings.Contains(e.Why, "0 bytes were sent before that") {
		t.Errorf("the Close fails with %v, want an error of tls.Close that says how "+
			"many bytes were sent", e)
	}
	want(t, got, "|cut")
	r.fails(r.Status(h), kind.Handle)
	r.gone()
}

// TestTheEndOfTheSessionDrains: the session's end sends the bytes of the data channels, but waits
// no longer than Timeouts.Close. A connection ends with close_notify if its Close is under way and
// all bytes are sent. Otherwise it is cut.
func TestTheEndOfTheSessionDrains(t *testing.T) {
	t.Parallel()
	for name, closing := range map[string]bool{"not closed": false, "in its Close": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(fakeengine.Write)
			r := newRig(t, g.install,
				timeouts(session.Timeouts{Close: testkit.Patience}))
			port, got := r.sink()
			h, c := r.channel(port)
			data := random(100000)
			send(t, c, data)
			await(t, g.first(), "a piece")
			end := "|cut"
			if closing {
				call := r.start(r.Close(h))
				unsendable(t, c)
				defer call.ok()
				end = "|close_notify"
			}
			over := make(chan struct{})
			go func() { r.End(); close(over) }()
			unsendable(t, c)
			g.release <- nil
			await(t, g.first(), "the second piece")
			g.release <- nil
			await(t, over, "the session's end")
			want(t, got, string(data)+end)
			r.gone()
		})
	}
	t.Run("but not for ever", func(t *testing.T) {
		t.Parallel()
		g := newGate(fakeengine.Write)
		r := newRig(t, g.install, timeouts(session.Timeouts{Close: moment}))
		port, got := r.sink()
		a, c := r.channel(port)
		_, d := r.channel(port)
		send(t, c, []byte("lost"))
		send(t, d, []byte("lost"))
		await(t, g.first(), "a piece")
		await(t, g.first(), "a piece")
		call := r.start(r.Close(a))
		unsendable(t, c)
		r.gone()
		call.fails(kind.Cancelled)
		want(t, got, "|cut")
		want(t, got, "|cut")
	})
}

// TestBytesSentBeforeTheCallerClosedItsChannelArrive: a caller closes its end of a data channel.
// The peer gets the bytes that the caller has sent before. But even a later tls.Close sends no
// close_notify, because the caller may have died in the middle of a Write.
func TestBytesSentBeforeTheCallerClosedItsChannelArrive(t *testing.T) {
	t.Parallel()
	for name, byClose := range map[string]bool{"tls.Close": true, "the session's end": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			port, got := r.sink()
			h, c := r.channel(port)
			send(t, c, []byte("all of it"))
			c.Close()
			r.ok(r.Flush(h, 9))
			if st := r.status(h); st.Write != "open" || st.Sent != 9 {
				t.Errorf("the status is %+v, want Write open and Sent 9", st)
			}
			r.fails(r.Flush(h, 10), kind.State)
			if byClose {
				r.ok(r.Close(h))
			} else {
				r.End()
			}
			want(t, got, "all of it|cut")
		})
	}
}

// TestShutdownOfAChannelThatItsCallerHasClosedSendsCloseNotify: the Shutdown may come before or
// after the bytes were sent to the peer.
func TestShutdownOfAChannelThatItsCallerHasClosedSendsCloseNotify(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(fakeengine.Write)
			r := newRig(t, g.install)
			port, got := r.sink()
			h, c := r.channel(port)
			send(t, c, []byte("all"))
			await(t, g.first(), "the piece")
			c.Close()
			if late {
				g.release <- nil
				r.fails(r.Flush(h, 4), kind.State)
			}
			shut := r.start(r.Shutdown(h))
			g.release <- nil
			shut.ok()
			want(t, got, "all|close_notify")
			if st := r.status(h); st.Write != "shut" {
				t.Errorf("the status is %+v, want Write shut", st)
			}
			r.ok(r.Shutdown(h))
			r.ok(r.Close(h))
			r.gone()
		})
	}
}

// TestAPeersResetEndsTheDrain: a Close waits until the bytes are sent. If the peer resets the
// connection, the Close fails with ECONNRESET.
func TestAPeersResetEndsTheDrain(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install, timeouts(session.Timeouts{Write: era}))
	r.SetReasonTimeout(0) // the peer sends no alert, so do not wait for one
	port, got := r.sink()
	h, c := r.channel(port)
	send(t, c, random(100000))
	await(t, g.first(), "a piece")
	closing := r.start(r.Close(h))
	unsendable(t, c)
	if closing.ended() {
		t.Fatal("the Close has ended before all bytes were sent to the peer")
	}
	g.release <- os.NewSyscallError("write", syscall.ECONNRESET)
	if e := closing.fails(kind.IO); e.Errno != "ECONNRESET" || e.Op != "tls.Close" {
		t.Errorf("the Close fails with %v, want ECONNRESET in an error of tls.Close", e)
	}
	want(t, got, "|cut")
	r.gone()
}

// TestCloseEndsAHandshakeThatBringsAChannel: if the handshake succeeds while the Close waits, the
// Close sends the bytes of the data channel. If stallTimeout passes first, the Close cancels the
// handshake.
func TestCloseEndsAHandshakeThatBringsAChannel(t *testing.T) {
	t.Parallel()
	t.Run("it goes on waiting", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.SetStallTimeout(moment)
		h := r.handle(r.NewClient("localhost", testkit.Silent(t)))
		c, worker := pair(t)
		handshake, flush := r.start(r.Session.Handshake(h, worker)), r.start(r.Flush(h, 1))
		r.ok(r.Close(h))
		handshake.fails(kind.Cancelled)
		flush.fails(kind.Cancelled)
		connClosed(t, c)
		r.gone()
	})
	t.Run("it succeeds", func(t *testing.T) {
		t.Parallel()
		g := newGate(fakeengine.Handshake)
		r := newRig(t, g.install)
		r.SetStallTimeout(era)
		port, got := r.sink()
		h := r.handle(r.NewClient("localhost", port))
		c, worker := pair(t)
		send(t, c, []byte("early"))
		handshake := r.start(r.Session.Handshake(h, worker))
		await(t, g.first(), "the handshake")
		closing := r.start(r.Close(h))
		g.release <- nil
		handshake.ok()
		closing.ok()
		want(t, got, "early|close_notify")
		r.gone()
	})
}

func TestFlushWaitsUntilSoMuchHasLeft(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	port, _ := r.sink()
	h, c := r.channel(port)
	send(t, c, random(4))
	await(t, g.first(), "the piece")
	four, five := r.start(r.Flush(h, 4)), r.start(r.Flush(h, 5))
	r.ok(r.Flush(h, 0))
	if four.ended() {
		t.Fatal("a Flush of 4 bytes has ended before a byte was sent")
	}
	g.release <- nil
	four.ok()
	if five.ended() {
		t.Error("a Flush of 5 bytes has ended after 4 bytes")
	}
	five.Cancel()
	five.fails(kind.Cancelled)
	later := r.start(r.Flush(h, 5))
	c.CloseWrite()
	later.fails(kind.State)
	// Without a channel:
	plain := r.client(port)
	g.release <- nil
	r.ok(r.Write(plain, random(3)))
	r.ok(r.Flush(plain, 3))
	r.fails(r.Flush(plain, 4), kind.State)
}

// TestFlushAndShutdownAreAnsweredAfterTheirClose: a Flush and a Shutdown are made before a Close,
// but run after the Close has ended. A Flush succeeds if the Close has sent as many bytes as the
// Flush asks for.
func TestFlushAndShutdownAreAnsweredAfterTheirClose(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.SetStallTimeout(era)
	port, got := r.sink()
	h, caller := r.channel(port)
	send(t, caller, random(4))
	flush, more, shutdown := r.Flush(h, 4), r.Flush(h, 5), r.Shutdown(h)
	r.ok(r.Close(h))
	r.ok(flush)
	r.fails(more, kind.State)
	r.ok(shutdown)
	want(t, got, string(random(4))+"|close_notify")
}

// TestFlushAndShutdownEndWithTheirClose: the Close sends the bytes of the data channel, so the
// waiting Flush or Shutdown ends. The Close need not cancel them after stallTimeout.
func TestFlushAndShutdownEndWithTheirClose(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(*rig, session.Handle) *session.Call
		ends kind.Kind
	}{
		"Flush": {func(r *rig, h session.Handle) *session.Call {
			return r.Flush(h, 4)
		}, ok},
		"Flush of what is never": {func(r *rig, h session.Handle) *session.Call {
			return r.Flush(h, 5)
		}, kind.State},
		"Shutdown": {func(r *rig, h session.Handle) *session.Call {
			return r.Shutdown(h)
		}, ok},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(fakeengine.Write)
			r := newRig(t, g.install)
			r.SetStallTimeout(era) // if the Close waited for it, the test would hang
			port, got := r.sink()
			h, caller := r.channel(port)
			send(t, caller, random(4))
			await(t, g.first(), "the piece")
			call, closing := r.start(c.make(r, h)), r.start(r.Close(h))
			unsendable(t, caller)
			g.release <- nil
			closing.ok()
			if c.ends == ok {
				call.ok()
			} else {
				call.fails(c.ends)
			}
			want(t, got, string(random(4))+"|close_notify")
		})
	}
}
