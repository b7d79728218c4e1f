package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// logQueue is a queue between the log and its output, so that no caller waits for the output. A
// pipe without a reader, or a full disk, must not stop the daemon. The queue keeps up to queueBytes
// of entries, and auditBytes more of audit entries. The queue's goroutine writes them to the
// output. An entry is lost if the queue is full or the write fails. As soon as a write succeeds
// again, the log says how many entries were lost.
type logQueue struct {
	out   io.Writer
	ended chan struct{} // closed when the goroutine of run has ended

	mu      sync.Mutex // guards all below
	more    sync.Cond  // wakes run() when there is an entry, and at close()
	waiting []byte     // whole entries
	lost    int        // lost entries that no log line has reported yet
	dropped int        // all lost entries since the start
	onLoss  func(entries int)
	closing bool // close() was called: run() returns when the queue is empty
}

const (
	// queueBytes limits the entries that wait. Entries that run() is writing do not count.
	queueBytes = 1 << 20
	// auditBytes is the room that only audit entries may take, beyond queueBytes.
	auditBytes = 1 << 20
	// lastWrite is the longest time that close() waits.
	lastWrite = time.Second
)

// newLogQueue starts the queue's goroutine. The caller must close the queue.
func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, ended: make(chan struct{})}
	q.more.L = &q.mu
	go q.run()
	return q
}

// setOnLoss sets the function that logs the number of lost entries. The queue's goroutine calls it.
func (q *logQueue) setOnLoss(f func(entries int)) {
	q.mu.Lock()
	q.onLoss = f
	q.mu.Unlock()
}

// Write takes one entry. It never fails.
func (q *logQueue) Write(entry []byte) (int, error) { return q.put(entry, queueBytes) }

// forAudit is the writer for audit entries.
func (q *logQueue) forAudit() io.Writer { return auditQueue{q} }

type auditQueue struct{ q *logQueue }

func (a auditQueue) Write(entry []byte) (int, error) {
	return a.q.put(entry, queueBytes+auditBytes)
}

// put adds an entry. If the queue would then have more than limit bytes, put drops the entry.
func (q *logQueue) put(entry []byte, limit int) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting)+len(entry) > limit {
		q.lost++
		q.dropped++
		return len(entry), nil
	}
	q.waiting = append(q.waiting, entry...)
	q.more.Signal()
	return len(entry), nil
}

// run writes the entries to the output until the queue is closed and empty.
func (q *logQueue) run() {
	defer close(q.ended)
	var part []byte
	torn := false // the last write ended in the middle of a line
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
		lost, onLoss := q.lost, q.onLoss
		reports := err == nil && lost > 0 && onLoss != nil
		if reports {
			q.lost = 0
		}
		q.mu.Unlock()
		if reports {
			onLoss(lost)
		}
	}
}

// losses is the number of lost entries, from the start.
func (q *logQueue) losses() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// close makes the queue's goroutine write the remaining entries and end. It waits at most lastWrite
// for the goroutine, because the output may have no reader.
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
