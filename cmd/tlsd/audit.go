package main

import (
	"time"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
)

// How a worker tells the supervisor of audit events without making a call wait: each session has a
// limiter, and what passes it goes through the outbox, a queue with one sender. An event for which
// there is no room in the queue is counted with those that the limiter holds back.
const (
	outboxLength = 64
	auditBurst   = 50 // of one session
	auditRate    = 10 // a second
)

// send is the outbox's sender. It ends with the outbox.
func (w *workerProcess) send() {
	defer close(w.sent)
	for msg := range w.outbox {
		w.tell(msg)
	}
}

// auditor is what a session tells of, and what is to be done when it has ended.
func (w *workerProcess) auditor(number uint64) (note func(audit.Event), end func()) {
	limiter := audit.NewLimiter(auditBurst, auditRate)
	note = func(e audit.Event) {
		missed, ok := limiter.Take(time.Now(), 0)
		if !ok {
			return
		}
		e = e.Clean() // which bounds it
		select {
		case w.outbox <- handoff.FromWorker{Audit: &handoff.Audit{Session: number, Event: &e, Missed: missed}}:
		default:
			limiter.Miss(missed + 1)
		}
	}
	end = func() {
		if n := limiter.Missed(); n > 0 {
			w.outbox <- handoff.FromWorker{Audit: &handoff.Audit{Session: number, Missed: n}}
		}
	}
	return note, end
}
