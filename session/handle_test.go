package session_test

import (
	"fmt"
	"strings"
	"testing"

	"tlsd/internal/kind"
	"tlsd/session"
)

func TestHandlesCountFromOneInTheOrderOfArrival(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port := r.echo()
	// The calls are made in order, and run in the reverse order.
	calls := []*session.Call{
		r.NewClient("localhost", port),
		r.NewServerContext(r.cert.CertFile, r.cert.KeyFile),
		r.NewClient("localhost", port),
	}
	for i := len(calls) - 1; i >= 0; i-- {
		if got, want := r.handle(calls[i]), session.Handle(i+1); got != want {
			t.Errorf("call %d made handle %d, want %d", i, got, want)
		}
	}
}

func TestFailedCallHasTakenItsNumber(t *testing.T) {
	t.Parallel()

	for name, fail := range map[string]func(*rig){
		"NewClient refused": func(r *rig) {
			r.fails(r.NewClient("127.0.0.1", 1), kind.Connect)
		},
		"NewServerContext without a file": func(r *rig) {
			r.fails(r.NewServerContext("/nonexistent/crt", "/nonexistent/key"),
				kind.File)
		},
		"Accept on nothing": func(r *rig) {
			r.fails(r.Accept(77, "127.0.0.1", 1), kind.Handle)
		},
		"cancelled NewClient": func(r *rig) {
			c := r.NewClient("127.0.0.1", 1)
			c.Cancel()
			r.fails(c, kind.Cancelled)
		},
		"refused by the caller": func(r *rig) { r.SkipHandle() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			fail(r)
			if got := r.server(); got != 2 {
				t.Errorf("the next handle is %d, want 2", got)
			}
			// A failed call leaves no handle.
			r.fails(r.Close(1), kind.Handle)
			r.fails(r.CloseServerContext(1), kind.Handle)
		})
	}
}

func TestNumberIsNeverGivenOutTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port := r.echo()
	for want := session.Handle(1); want <= 5; want++ {
		h := r.handle(r.NewClient("127.0.0.1", port))
		if h != want {
			t.Fatalf("got handle %d, want %d", h, want)
		}
		r.ok(r.Close(h))
	}
}

func TestStartAt(t *testing.T) {
	t.Parallel()
	t.Run("sets the first number", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		if err := r.StartAt(500); err != nil {
			t.Fatal(err)
		}
		if h := r.server(); h != 500 {
			t.Errorf("got handle %d, want 500", h)
		}
		r.fails(r.Close(499), kind.Handle)
	})
	t.Run("may be repeated before a handle is made", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		for _, n := range []session.Handle{500, 7} {
			if err := r.StartAt(n); err != nil {
				t.Fatal(err)
			}
		}
		if h := r.server(); h != 7 {
			t.Errorf("got handle %d, want 7", h)
		}
	})
	for name, take := range map[string]func(*rig){
		"handle":        func(r *rig) { r.server() },
		"failed handle": func(r *rig) { r.SkipHandle() },
	} {
		t.Run("fails after a "+name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			take(r)
			err := r.StartAt(500)
			if e, ok := err.(*session.Error); !ok || e.Kind != kind.State ||
				!strings.Contains(err.Error(), "handle 1 ") {
				t.Errorf("got %v, want a state error that names handle 1", err)
			}
			if h := r.server(); h != 2 {
				t.Errorf("the next handle is %d, want 2", h)
			}
		})
	}
	t.Run("numbers end at the largest int32", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		if err := r.StartAt(1<<31 - 1); err != nil {
			t.Fatal(err)
		}
		if h := r.server(); h != 1<<31-1 {
			t.Errorf("got handle %d, want the largest int32", h)
		}
		for range 2 {
			r.fails(r.NewServerContext(r.cert.CertFile, r.cert.KeyFile), kind.Limit)
		}
		r.ok(r.CloseServerContext(1<<31 - 1))
		r.fails(r.NewClient("localhost", 1), kind.Limit)
	})
}

func TestHandleOfTheOtherSortOrUnknown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	conn := r.client(r.echo())
	ctx := r.server()
	gone := r.handle(r.NewServerContext(r.cert.CertFile, r.cert.KeyFile))
	r.ok(r.CloseServerContext(gone))

	onConn := map[string]func(session.Handle) *session.Call{
		"tls.Handshake": r.Handshake,
		"tls.Write": func(h session.Handle) *session.Call {
			return r.Write(h, []byte("x"))
		},
		"tls.Read": func(h session.Handle) *session.Call {
			return r.Read(h, 1)
		},
		"tls.Close": r.Close,
		"tls.SetInsecureSkipVerify": func(h session.Handle) *session.Call {
			return r.SetInsecureSkipVerify(h, true)
		},
		"tls.PeerCertSubject": r.PeerCertSubject,
		"tls.Version":         r.ConnectionVersion,
	}
	onCtx := map[string]func(session.Handle) *session.Call{
		"tls.Accept": func(h session.Handle) *session.Call {
			return r.Accept(h, "127.0.0.1", 1)
		},
		"tls.CloseServerContext": r.CloseServerContext,
	}
	check := func(op string, call func(session.Handle) *session.Call,
		h session.Handle, text string) {
		t.Helper()
		e := r.fails(call(h), kind.Handle)
		if e.Op != op || e.Handle != h {
			t.Errorf("%s(%d): the error names %s, handle %d", op, h, e.Op, e.Handle)
		}
		if want := fmt.Sprintf("%s: handle %d: %s", op, h, text); e.Error() != want {
			t.Errorf("got %q, want %q", e, want)
		}
	}
	const (
		unknown = "no such handle in this session"
		closed  = "it is closed, or the call that was to make it has failed"
	)
	for op, call := range onConn {
		check(op, call, ctx, "it is a server context, not a connection")
		check(op, call, gone, closed)
		check(op, call, 4000, unknown)
	}
	for op, call := range onCtx {
		check(op, call, conn, "it is a connection, not a server context")
		check(op, call, gone, closed)
		check(op, call, 4000, unknown)
	}
	// The two open handles still work.
	r.ok(r.Write(conn, []byte("x")))
	r.ok(r.CloseServerContext(ctx))
}

func TestSessionsDoNotShareHandles(t *testing.T) {
	t.Parallel()
	a, b := newRig(t), newRig(t)
	h := a.server()
	b.fails(b.CloseServerContext(h), kind.Handle)
	if got := b.server(); got != h {
		t.Errorf("the other session's first handle is %d, want %d", got, h)
	}
}

func TestOpenHandlesAreLimited(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(session.Limits{Handles: 2}))
	port := r.echo()
	ctx, conn := r.server(), r.client(port)
	for _, c := range []*session.Call{
		r.NewClient("localhost", port),
		r.NewServerContext(r.cert.CertFile, r.cert.KeyFile),
		r.Accept(ctx, "127.0.0.1", port),
	} {
		r.failsWith(c, kind.Limit, "2 handles are open")
	}
	r.ok(r.Close(conn))
	if h := r.server(); h != 6 {
		t.Errorf("got handle %d, want 6: two were made and three refused", h)
	}
}
