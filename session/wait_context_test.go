package session_test

import "testing"

// An Accept waits for the earlier calls that change its context. Until they end, the context is not
// ready, although a client waits.
func TestAContextThatIsBeingChangedIsNotReady(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.listener()
	r.watch(ctx)
	r.arrival(port)
	r.waitFor(ctx)
	change := r.SetOption(ctx, "client-cert", "none") // made here, and run below
	r.noneReady()
	w := r.start(r.Wait(-1))
	r.ok(change)
	if got := w.ok(); got != ctx {
		t.Errorf("Wait gives %v, want %d", got, ctx)
	}
	r.ok(r.Accept(ctx, "", 0))
	r.noneReady()
}
