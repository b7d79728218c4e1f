package main

import (
	"time"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
)

// This file reports audit events to the supervisor. No call waits for a report. Each session has a
// limiter. An event that passes the limiter goes into a queue, the outbox. The goroutine of
// runOutbox sends it to the supervisor. If the outbox is full, the event is dropped and counted, as
// if the limiter had dropped it.
const (
	outboxLength = 64 // messages
	auditBurst   = 50 // events of one session at once
	auditRate    = 10 // events of one session a second
)

// runOutbox sends the messages of the outbox until the outbox is closed.
func (w *workerProcess) runOutbox() {
	defer close(w.sent)
	for msg := range w.outbox {
		w.sendMessage(msg)
	}
}

// auditor returns two functions. The function note reports an event of the session. The function
// end reports the number of dropped events. The caller must call end() when the session has
// ended.
func (w *workerProcess) auditor(number uint64) (note func(audit.Event), end func()) {
	limiter := audit.NewLimiter(auditBurst, auditRate)
	message := func(a handoff.Audit) handoff.FromWorker { return handoff.FromWorker{Audit: &a} }
	note = func(e audit.Event) {
		missed, ok := limiter.Take(time.Now(), 0)
		if !ok {
			return
		}
		e = e.Clean() // also limits the length
		select {
		case w.outbox <- message(handoff.Audit{Session: number, Event: &e, Missed: missed}):
		default:
			limiter.Miss(missed + 1)
		}
	}
	end = func() {
		if n := limiter.Missed(); n > 0 {
			w.outbox <- message(handoff.Audit{Session: number, Missed: n})
		}
	}
	return note, end
}
