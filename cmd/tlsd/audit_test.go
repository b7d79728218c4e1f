package main

import (
	"testing"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
)

// The method auditor returns two functions, note and end. If the queue to the supervisor is full,
// the function note drops the event, and does not wait. The next event that fits into the queue has
// the number of dropped events. If no event follows, the function end sends the number.
func TestAuditDoesNotWaitAndCounts(t *testing.T) {
	t.Parallel()
	w := &workerProcess{outbox: make(chan handoff.FromWorker, 1)}
	note, end := w.auditor(7)
	next := func() *handoff.Audit {
		t.Helper()
		select {
		case msg := <-w.outbox:
			return msg.Audit
		default:
			t.Fatal("the queue to the supervisor is empty; want an audit message")
			return nil
		}
	}
	for range 3 {
		note(audit.Event{Name: "x\n"})
	}
	if a := next(); a.Session != 7 || a.Event.Name != `x\n` || a.Missed != 0 {
		t.Errorf("the first message is %+v; want session 7, the name x\\n, none dropped", a)
	}
	note(audit.Event{Name: "y"})
	if a := next(); a.Event.Name != "y" || a.Missed != 2 {
		t.Errorf("the second message is %+v; want the event y, and 2 dropped", a)
	}
	note(audit.Event{Name: "z"})
	note(audit.Event{Name: "left out"})
	next()
	end()
	if a := next(); a.Event != nil || a.Missed != 1 {
		t.Errorf("the function end sends %+v; want no event, and 1 dropped", a)
	}
	end()
	if len(w.outbox) != 0 {
		t.Error("the second call of the function end sends a message; want none")
	}
}
