package main

import (
	"time"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
)

// This file reports audit events to the supervisor, and no call waits for that. Each session has a
// limiter. An event that passes the limiter goes into the outbox, a queue with one sender. If the
// outbox is full, the event is dropped and counted, like the events that the limiter drops.
const (
	outboxLength = 64
	auditBurst   = 50 // of one session
	auditRate    = 10 // a second
)

// runOutbox sends the messages of the outbox until the outbox is closed.
func (w *workerProcess) runOutbox() {
	defer close(w.sent)
	for msg := range w.outbox {
		w.sendMessage(msg)
	}
}

// auditor returns note, which reports an event of the session, and end, which the caller must call
// when the session has ended.
func (w *workerProcess) auditor(number uint64) (note func(audit.Event), end func()) {
	limiter := audit.NewLimiter(auditBurst, auditRate)
	note = func(e audit.Event) {
		missed, ok := limiter.Take(time.Now(), 0)
		if !ok {
			return
		}
		e = e.Clean() // limits its length, too
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
