package session_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

func TestEachPieceOfAChannelHasTheWriteTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{Write: moment}))
	h, c := r.channel(testkit.Serve(t, func(nc net.Conn) { deaf(r, nc); <-t.Context().Done() }))
	n, err := c.Write(make([]byte, 64<<20))
	if !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("%d bytes sent, %v; want EPIPE", n, err)
	}
	st := r.status(h) // the session publishes the status before the send fails
	e := st.WriteError
	if st.Write != "failed" || st.Read != "open" || e == nil || e.Kind != kind.Timeout ||
		e.Op != "tls.Write" || e.Handle != h ||
		!strings.Contains(e.Why, "bytes within 50ms; ") {
		t.Errorf("the status is %+v, its WriteError %v; want Write failed, Read open, "+
			"and a timeout of 50ms in tls.Write", st, e)
	}
	if got := r.lastError(); got != e.Error() {
		t.Errorf("the last error is %q, want %q", got, e)
	}
	r.ok(r.Close(h)) // succeeds, because Status has returned the error
	r.gone()
}

// TestSetTimeoutHoldsForThePieceThatWaits: SetTimeout changes the timeout of the piece that is
// being sent.
func TestSetTimeoutHoldsForThePieceThatWaits(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install, timeouts(session.Timeouts{Write: era}))
	port, _ := r.sink()
	h, c := r.channel(port)
	send(t, c, []byte("x"))
	await(t, g.first(), "the piece")
	r.ok(r.SetTimeout(h, moment))
	unsendable(t, c)
	// No call has returned the error before, so the Close returns it.
	r.failsWith(r.Close(h), kind.Timeout, "within 50ms; 0 bytes were sent before that")
}

// TestOneConnectionsStuckPeerDelaysNoOther: neither a peer that reads nothing nor a caller that
// reads nothing delays another connection.
func TestOneConnectionsStuckPeerDelaysNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, stuck := r.channel(testkit.Serve(t, func(nc net.Conn) {
		deaf(r, nc)
		<-t.Context().Done()
	}))
	const much = 16 << 20 // more than all buffers take
	_, unread := r.channel(r.serve(func(c *tls.Conn, _ *net.TCPConn) {
		c.Write(make([]byte, much))
	}))
	for n := 1; n > 0; {
		stuck.SetWriteDeadline(time.Now().Add(moment))
		n, _ = stuck.Write(make([]byte, 1<<20))
	}
	receive(t, unread, 1) // the peer sends; the caller does not read the rest yet
	h, c := r.channel(r.echo())
	for range 100 {
		send(t, c, []byte("ping"))
		receive(t, c, 4)
	}
	r.ok(r.Close(h))
	receive(t, unread, much-1)
}

// TestAResetIsNoticedByACallerThatOnlyWrites: the peer resets the connection, perhaps after a
// close_notify. Then the sends of the caller fail, and the status has the error.
func TestAResetIsNoticedByACallerThatOnlyWrites(t *testing.T) {
	t.Parallel()
	for name, notify := range map[string]bool{"at once": false, "after close_notify": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			reset := make(chan struct{})
			h, c := r.channel(r.serve(func(c *tls.Conn, nc *net.TCPConn) {
				if notify {
					c.CloseWrite()
				}
				<-reset
				nc.SetLinger(0)
			}))
			if notify {
				rest(t, c)
			}
			send(t, c, []byte("x"))
			r.ok(r.Flush(h, 1))
			close(reset)
			unsendable(t, c)
			st := r.status(h)
			if e := st.WriteError; st.Write != "failed" || e.Kind != kind.IO ||
				e.Errno != "ECONNRESET" ||
				e.Op != "tls.Write" || strings.HasPrefix(e.Why, "read: ") {
				t.Errorf("the status is %+v, its WriteError %v; want Write "+
					"failed with ECONNRESET in tls.Write", st, st.WriteError)
			}
			if notify != (st.Read == "end") ||
				!notify && (st.Read != "failed" || st.ReadError.Op != "tls.Read") {
				t.Errorf("the status is %+v, want Read end after a "+
					"close_notify, and else failed", st)
			}
			unsendable(t, c)
			r.ok(r.Close(h))
		})
	}
}

// TestACutFailsOnlyReading: a peer that ends its direction without close_notify may go on reading.
func TestACutFailsOnlyReading(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := make(chan string, 1)
	h, c := r.channel(r.serve(func(c *tls.Conn, nc *net.TCPConn) {
		c.Write([]byte("half a mess"))
		nc.CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b) + "|"
	}))
	if b := rest(t, c); string(b) != "half a mess" {
		t.Errorf("the caller has got %q, want \"half a mess\"", b)
	}
	st := r.status(h)
	if st.Read != "failed" || st.Write != "open" || st.ReadError.Kind != kind.IO ||
		st.WriteError != nil || st.Received != 11 {
		t.Errorf("the status is %+v, want Read failed, Write open and Received 11", st)
	}
	if last := r.lastError(); last != st.ReadError.Error() {
		t.Errorf("the last error is %q, want the ReadError of the status", last)
	}
	send(t, c, []byte("still here"))
	r.ok(r.Close(h))
	want(t, got, "still here|")
}

// TestAnAlertIsTheReasonOfBothDirections: a send fails, and an alert of the peer may follow. If the
// alert comes within reasonTimeout, it is the error of both directions.
func TestAnAlertIsTheReasonOfBothDirections(t *testing.T) {
	t.Parallel()
	for name, comes := range map[string]bool{"it comes": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed, alert := make(chan struct{}), make(chan struct{})
			r := newRig(t, func(e *fakeengine.Engine, _ *session.Config) {
				e.Hook = func(ctx context.Context, op fakeengine.Op) error {
					switch op {
					case fakeengine.Write:
						close(failed)
						return os.NewSyscallError("write", syscall.EPIPE)
					case fakeengine.Read:
						select {
						case <-alert:
							return errors.New("alert 116")
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					return nil
				}
			})
			says := "broken pipe"
			if comes {
				r.SetReasonTimeout(era)
				says = "alert 116"
			} else {
				r.SetReasonTimeout(moment)
			}
			h, c := r.channel(r.echo())
			send(t, c, []byte("x"))
			await(t, failed, "the failed send")
			if comes {
				if st := r.status(h); st.Write != "open" {
					t.Errorf("before the alert was read, the status is %+v, "+
						"want Write open", st)
				}
				close(alert)
			}
			unsendable(t, c)
			if st := r.status(h); st.Write != "failed" ||
				!strings.Contains(st.WriteError.Why, says) ||
				comes != (st.Read == "failed") ||
				comes && !strings.Contains(st.ReadError.Why, says) {
				t.Errorf("the status is %+v, its WriteError %v, its ReadError "+
					"%v; want the alert in both if it came, and else EPIPE "+
					"in WriteError", st, st.WriteError, st.ReadError)
			}
			r.ok(r.Close(h))
		})
	}
}

// TestAResetIsNoErrorOfACloseWithoutBytes: the peer ends the connection with close_notify, and
// resets it before the Close. If the caller has sent no bytes, it has lost none, and the Close
// succeeds.
func TestAResetIsNoErrorOfACloseWithoutBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, c := r.channel(r.serve(func(c *tls.Conn, nc *net.TCPConn) {
		c.CloseWrite()
		nc.SetLinger(0)
	}))
	rest(t, c)
	unsendable(t, c)
	r.ok(r.Close(h))
	r.gone()
}

// TestCloseReturnsTheErrorOfAHalfCloseWithoutBytes: the caller shuts down its direction of the data
// channel and has sent no bytes. If close_notify cannot be sent, the Close returns the error.
func TestCloseReturnsTheErrorOfAHalfCloseWithoutBytes(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.CloseWrite)
	r := newRig(t, g.install)
	h, c := r.channel(r.serve(func(c *tls.Conn, _ *net.TCPConn) {
		c.CloseWrite()
		io.Copy(io.Discard, c)
	}))
	rest(t, c)
	testkit.Must(t, c.CloseWrite())
	testkit.Receive(t, g.arrived, "the out pump sends close_notify")
	g.release <- os.NewSyscallError("write", syscall.EPIPE)
	if e := r.fails(r.Close(h), kind.IO); e.Errno != "EPIPE" || e.Op != "tls.Close" {
		t.Errorf("the Close fails with %v, want EPIPE in an error of tls.Close", e)
	}
	r.gone()
}

// TestCloseReturnsAWriteErrorThatNoCallHasReturned: Close returns the error of writing, unless
// another call has returned it. The handle is freed in any case.
func TestCloseReturnsAWriteErrorThatNoCallHasReturned(t *testing.T) {
	t.Parallel()
	broken := os.NewSyscallError("write", syscall.EPIPE)
	for name, told := range map[string]func(*rig, session.Handle){
		"nobody":   nil,
		"Status":   func(r *rig, h session.Handle) { r.status(h) },
		"Flush":    func(r *rig, h session.Handle) { r.fails(r.Flush(h, 1), kind.IO) },
		"Shutdown": func(r *rig, h session.Handle) { r.fails(r.Shutdown(h), kind.IO) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, failing(fakeengine.Write, broken))
			h, c := r.channel(r.serve(func(c *tls.Conn, _ *net.TCPConn) {
				c.CloseWrite()
				io.Copy(io.Discard, c)
			}))
			rest(t, c)
			send(t, c, []byte("x"))
			unsendable(t, c)
			if told != nil {
				told(r, h)
				r.ok(r.Close(h))
			} else if e := r.fails(r.Close(h), kind.IO); e.Errno != "EPIPE" ||
				e.Op != "tls.Close" || e.Handle != h {
				t.Errorf("the Close fails with %v, want EPIPE in an error of "+
					"tls.Close", e)
			}
			r.gone()
		})
	}
}
