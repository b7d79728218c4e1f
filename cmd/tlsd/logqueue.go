package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// logQueue stands between the log and where it goes, so that who logs never waits: a pipe that
// nobody reads or a disk that is full must not stop the daemon. What is written to it is kept until
// a goroutine of its own has passed it on, up to queueBytes; the audit has room beyond that, which
// nothing else can take. What finds no room, or cannot be written, is lost; as soon as something
// can be written again, the log says how many entries that were.
type logQueue struct {
	out   io.Writer
	ended chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex // guards all below
	more    sync.Cond  // waiting or closing has changed
	waiting []byte     // whole entries
	lost    int        // entries that were not told of
	dropped int        // entries, from the start
	onLoss  func(entries int)
	closing bool // pass is to end when nothing waits
}

const (
	// queueBytes is how much of the log waits at most.
	queueBytes = 1 << 20
	// auditBytes is how much of the audit waits beyond that.
	auditBytes = 1 << 20
	// lastWrite bounds the wait of close.
	lastWrite = time.Second
)

// newLogQueue starts the queue's goroutine. The queue is to be closed.
func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, ended: make(chan struct{})}
	q.more.L = &q.mu
	go q.pass()
	return q
}

// tellLoss names the function that is told, on the queue's goroutine, how many entries were lost.
func (q *logQueue) tellLoss(f func(entries int)) {
	q.mu.Lock()
	q.onLoss = f
	q.mu.Unlock()
}

// Write takes one entry. It never fails.
func (q *logQueue) Write(entry []byte) (int, error) { return q.put(entry, queueBytes) }

// forAudit is the queue with the audit's room.
func (q *logQueue) forAudit() io.Writer { return auditQueue{q} }

type auditQueue struct{ q *logQueue }

func (a auditQueue) Write(entry []byte) (int, error) { return a.q.put(entry, queueBytes+auditBytes) }

// put takes an entry if no more than room waits then.
func (q *logQueue) put(entry []byte, room int) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting)+len(entry) > room {
		q.lost++
		q.dropped++
		return len(entry), nil
	}
	q.waiting = append(q.waiting, entry...)
	q.more.Signal()
	return len(entry), nil
}

// pass writes what waits until the queue is closed and empty.
func (q *logQueue) pass() {
	defer close(q.ended)
	var part []byte
	torn := false // the last line that was written has no end
	for {
		q.mu.Lock()
		for len(q.waiting) == 0 && !q.closing {
			q.more.Wait()
		}
		part, q.waiting = q.waiting, part[:0]
		q.mu.Unlock()
		if len(part) == 0 {
			return
		}
		if torn {
			part = append([]byte("\n"), part...)
		}
		n, err := q.out.Write(part)
		if n > 0 {
			torn = part[n-1] != '\n'
		}
		q.mu.Lock()
		if err != nil {
			left := bytes.Count(part[n:], []byte("\n"))
			q.lost += left
			q.dropped += left
		}
		lost, tell := q.lost, q.onLoss
		tells := err == nil && lost > 0 && tell != nil
		if tells {
			q.lost = 0
		}
		q.mu.Unlock()
		if tells {
			tell(lost)
		}
	}
}

// losses is how many entries were lost, from the start.
func (q *logQueue) losses() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// close waits until everything is written, but not for long: nobody may be reading.
func (q *logQueue) close() {
	q.mu.Lock()
	q.closing = true
	q.more.Signal()
	q.mu.Unlock()
	select {
	case <-q.ended:
	case <-time.After(lastWrite):
	}
}
