package session_test

import (
	"context"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// A gate is a hook that stops the operations of one kind until the test releases them.
type gate struct {
	op      fakeengine.Op
	arrived chan struct{} // gets an element for each operation that begins
	release chan error    // the operation's result; nil lets the operation go on
}

func newGate(op fakeengine.Op) *gate {
	return &gate{op: op, arrived: make(chan struct{}, 100), release: make(chan error, 100)}
}

// install sets the gate as the engine's hook.
func (g *gate) install(e *fakeengine.Engine, _ *session.Config) {
	e.Hook = func(ctx context.Context, op fakeengine.Op) error {
		if op != g.op {
			return nil
		}
		g.arrived <- struct{}{}
		select {
		case err := <-g.release:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// first returns a channel, which is closed when the next operation begins.
func (g *gate) first() <-chan struct{} {
	ch := make(chan struct{})
	go func() {
		select {
		case <-g.arrived:
			close(ch)
		case <-time.After(testkit.Patience):
		}
	}()
	return ch
}

// failing returns a setting for newRig: each operation op of the engine fails with err.
func failing(op fakeengine.Op, err error) func(*fakeengine.Engine, *session.Config) {
	return func(e *fakeengine.Engine, _ *session.Config) {
		e.Hook = func(_ context.Context, o fakeengine.Op) error {
			if o == op {
				return err
			}
			return nil
		}
	}
}
