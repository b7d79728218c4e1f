package session_test

import (
	"context"
	"errors"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

const ok kind.Kind = "" // in tables: the call succeeds

// ops are the calls on a connection handle, in the order of the columns of TestStates.
var ops = []struct {
	name string
	make func(*rig, session.Handle) *session.Call
}{
	{"Handshake", func(r *rig, h session.Handle) *session.Call { return r.Handshake(h) }},
	{"Write", func(r *rig, h session.Handle) *session.Call { return r.Write(h, []byte("y")) }},
	{"Read", func(r *rig, h session.Handle) *session.Call { return r.Read(h, 10) }},
	{"SetInsecureSkipVerify", func(r *rig, h session.Handle) *session.Call {
		return r.SetInsecureSkipVerify(h, true)
	}},
	{"PeerCertSubject", func(r *rig, h session.Handle) *session.Call {
		return r.PeerCertSubject(h)
	}},
	{"Version", func(r *rig, h session.Handle) *session.Call { return r.ConnectionVersion(h) }},
	{"Close", func(r *rig, h session.Handle) *session.Call { return r.Close(h) }},
}

// states are the rows of TestStates. reach returns a handle in the state. Some states last only
// until a call ends, such as "making". For such a state, reach also returns a function that lets
// this call end. TestStates makes the column's call, and then calls the function.
var states = []struct {
	name  string
	reach func(*rig, *gate) (session.Handle, func())
	want  [7]kind.Kind
}{
	{"making, then open", func(r *rig, _ *gate) (session.Handle, func()) {
		c := r.NewClient("localhost", r.echo())
		return 1, func() { r.ok(c) }
	}, [7]kind.Kind{ok, kind.State, kind.State, ok, kind.State, kind.State, ok}},

	{"making, then failed", func(r *rig, _ *gate) (session.Handle, func()) {
		c := r.NewClient("127.0.0.1", testkit.Port(r.t))
		return 1, func() { r.fails(c, kind.Connect) }
	}, [7]kind.Kind{kind.Handle, kind.Handle, kind.Handle, kind.Handle, kind.Handle,
		kind.Handle, kind.Handle}},

	{"open", func(r *rig, _ *gate) (session.Handle, func()) {
		return r.handle(r.NewClient("localhost", r.echo())), nil
	}, [7]kind.Kind{ok, kind.State, kind.State, ok, kind.State, kind.State, ok}},

	{"shaking, then ready", func(r *rig, g *gate) (session.Handle, func()) {
		h := r.handle(r.NewClient("localhost", testkit.Serve(r.t, greet(r))))
		c := r.start(r.Handshake(h))
		await(r.t, g.first(), "the handshake to begin")
		return h, func() { g.release <- nil; c.ok() }
	}, [7]kind.Kind{ok, ok, ok, kind.State, ok, ok, ok}},

	{"shaking, then broken", func(r *rig, g *gate) (session.Handle, func()) {
		h := r.handle(r.NewClient("localhost", r.echo()))
		c := r.start(r.Handshake(h))
		await(r.t, g.first(), "the handshake to begin")
		return h, func() { g.release <- errors.New("no"); c.fails(kind.Handshake) }
	}, [7]kind.Kind{kind.State, kind.State, kind.State, kind.State, kind.State,
		kind.State, ok}},

	{"ready", func(r *rig, g *gate) (session.Handle, func()) {
		g.release <- nil
		return r.client(testkit.Serve(r.t, greet(r))), nil
	}, [7]kind.Kind{ok, ok, ok, kind.State, ok, ok, ok}},

	{"ready, accepted", func(r *rig, g *gate) (session.Handle, func()) {
		g.release <- nil
		port := testkit.Port(r.t)
		c := r.start(r.Accept(r.server(), "127.0.0.1", port))
		r.dial(port).Write([]byte("x"))
		return c.ok().(session.Handle), nil
	}, [7]kind.Kind{ok, ok, ok, kind.State, ok, ok, ok}},

	{"broken", func(r *rig, g *gate) (session.Handle, func()) {
		g.release <- errors.New("no")
		h := r.handle(r.NewClient("localhost", r.echo()))
		r.fails(r.Handshake(h), kind.Handshake)
		return h, nil
	}, [7]kind.Kind{kind.State, kind.State, kind.State, kind.State, kind.State,
		kind.State, ok}},

	{"failed", func(r *rig, _ *gate) (session.Handle, func()) {
		r.fails(r.NewClient("127.0.0.1", testkit.Port(r.t)), kind.Connect)
		return 1, nil
	}, [7]kind.Kind{kind.Handle, kind.Handle, kind.Handle, kind.Handle, kind.Handle,
		kind.Handle, kind.Handle}},

	{"closed", func(r *rig, _ *gate) (session.Handle, func()) {
		h := r.handle(r.NewClient("localhost", r.echo()))
		r.ok(r.Close(h))
		return h, nil
	}, [7]kind.Kind{kind.Handle, kind.Handle, kind.Handle, kind.Handle, kind.Handle,
		kind.Handle, kind.Handle}},
}

// TestStates makes every call in every state of the diagram in doc.go.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, st := range states {
		for i, op := range ops {
			t.Run(st.name+"/"+op.name, func(t *testing.T) {
				t.Parallel()
				// The gate stops each handshake. reach releases the handshake that
				// it makes. If op is Handshake, its handshake is released below.
				g := newGate(fakeengine.Handshake)
				r := newRig(t, g.install)
				h, pass := st.reach(r, g)
				c := op.make(r, h)
				if pass != nil && !c.Waits() {
					t.Error("an earlier call runs, but Waits says that this " +
						"call would not wait")
				}
				if pass != nil {
					pass()
				}
				g.release <- nil
				if want := st.want[i]; want == ok {
					r.ok(c)
				} else {
					e := r.fails(c, want)
					if e.Handle != h {
						t.Errorf("the error names handle %d, want %d",
							e.Handle, h)
					}
				}
			})
		}
	}
}

// TestStateOutlivesRefusedCalls: a call that is refused in a state changes nothing.
func TestStateOutlivesRefusedCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.handle(r.NewClient("localhost", r.echo()))
	r.fails(r.Write(h, []byte("early")), kind.State)
	r.fails(r.Read(h, 1), kind.State)
	r.ok(r.Handshake(h))
	r.fails(r.SetInsecureSkipVerify(h, true), kind.State)
	r.ok(r.Handshake(h)) // a second time, which does nothing
	if n := r.ok(r.Write(h, []byte("late"))); n != 4 {
		t.Errorf("Write returned %v, want 4", n)
	}
	if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "late" {
		t.Errorf("Read returned %q, want \"late\"", got)
	}
	if got := r.ok(r.PeerCertSubject(h)); got != "/CN=localhost" {
		t.Errorf("the subject is %q, want /CN=localhost", got)
	}
	if got := r.ok(r.ConnectionVersion(h)); got != "TLSv1.3" {
		t.Errorf("the version is %q, want TLSv1.3", got)
	}
}

func TestWriteOfNothingSucceedsOnlyWhenReady(t *testing.T) {
	t.Parallel()
	r := newRig(t, failing(fakeengine.Write, errors.New("the engine must not be asked")))
	h := r.handle(r.NewClient("localhost", r.echo()))
	r.fails(r.Write(h, nil), kind.State)
	r.ok(r.Handshake(h))
	if n := r.ok(r.Write(h, nil)); n != 0 {
		t.Errorf("a Write of 0 bytes returned %v, want 0", n)
	}
	r.ok(r.Close(h))
	r.fails(r.Write(h, nil), kind.Handle)
}

func TestSetInsecureSkipVerify(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		calls []bool
		want  kind.Kind
	}{
		"never":       {nil, kind.Verify},
		"on":          {[]bool{true}, ok},
		"off again":   {[]bool{true, false}, kind.Verify},
		"on and on":   {[]bool{true, true}, ok},
		"on at last":  {[]bool{false, true}, ok},
		"off and off": {[]bool{false, false}, kind.Verify},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(e *fakeengine.Engine, _ *session.Config) {
				e.System = nil
			})
			h := r.handle(r.NewClient("localhost", r.echo()))
			for _, on := range c.calls {
				r.ok(r.SetInsecureSkipVerify(h, on))
			}
			if c.want == ok {
				r.ok(r.Handshake(h))
			} else {
				r.fails(r.Handshake(h), c.want)
			}
		})
	}
	t.Run("holds for one connection", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(e *fakeengine.Engine, _ *session.Config) { e.System = nil })
		port := r.echo()
		a, b := r.handle(r.NewClient("localhost", port)),
			r.handle(r.NewClient("localhost", port))
		r.ok(r.SetInsecureSkipVerify(a, true))
		r.fails(r.Handshake(b), kind.Verify)
		r.ok(r.Handshake(a))
	})
	t.Run("an accepted connection says that it verifies nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ctx, port := r.server(), testkit.Port(t)
		c := r.start(r.Accept(ctx, local, port))
		r.dial(port)
		r.failsWith(r.SetInsecureSkipVerify(c.ok().(session.Handle), true), kind.State,
			"accepted connection")
	})
	t.Run("the engine's refusal is a fault of tlsd", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, failing(fakeengine.SetVerify, context.Canceled))
		h := r.handle(r.NewClient("localhost", r.echo()))
		r.ok(r.SetInsecureSkipVerify(h, true))
		r.fails(r.Handshake(h), kind.Internal)
	})
}
