package main

import (
	"testing"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
)

// An event for which the queue to the supervisor has no room is counted, and delays no call.
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
			t.Fatal("there is no message")
			return nil
		}
	}
	for range 3 {
		note(audit.Event{Name: "x\n"})
	}
	if a := next(); a.Session != 7 || a.Event.Name != `x\n` || a.Missed != 0 {
		t.Errorf("first %+v", a)
	}
	note(audit.Event{Name: "y"})
	if a := next(); a.Event.Name != "y" || a.Missed != 2 {
		t.Errorf("second %+v", a)
	}
	note(audit.Event{Name: "z"})
	note(audit.Event{Name: "left out"})
	next()
	end()
	if a := next(); a.Event != nil || a.Missed != 1 {
		t.Errorf("last %+v", a)
	}
	end()
	if len(w.outbox) != 0 {
		t.Error("a count is told twice")
	}
}
