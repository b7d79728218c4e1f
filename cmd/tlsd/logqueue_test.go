package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// A gate is an output of a log. Until it is opened, Write waits, as if nobody read the output. If
// its room is used up, Write fails, as on a full disk.
type gate struct {
	open chan struct{} // closed when the gate is open

	mu   sync.Mutex // guards the rest
	room int        // bytes; -1: no limit
	text bytes.Buffer
}

func newGate(room int) *gate { return &gate{open: make(chan struct{}), room: room} }

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(p)
	if g.room >= 0 {
		n = min(n, g.room-g.text.Len())
	}
	g.text.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

func TestTheLogKeepsWhatIsWrittenInOrder(t *testing.T) {
	t.Parallel()
	g := newGate(-1)
	q := newLogQueue(g)
	close(g.open)
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintf(q, "entry %d\n", i)
		fmt.Fprintf(&want, "entry %d\n", i)
	}
	q.close()
	if got := g.String(); got != want.String() {
		t.Errorf("the output has %d bytes, want %d, in the order of the writes", len(got),
			want.Len())
	}
}

// If nobody reads the log, writers do not wait. The queue keeps entries up to its limit, and the
// log has the number of lost entries at its end.
func TestLoggingDoesNotWaitForTheReader(t *testing.T) {
	t.Parallel()
	g := newGate(-1)
	q := newLogQueue(g)
	q.setOnLoss(func(n int) { fmt.Fprintf(q, "lost %d\n", n) })
	const entries = 3 * queueBytes / 1000
	entry := strings.Repeat("x", 999) + "\n"
	for range entries {
		q.Write([]byte(entry))
	}
	begin := time.Now()
	q.close() // nobody reads the log, so close gives up after the time lastWrite
	if took := time.Since(begin); took < lastWrite {
		t.Errorf("close gave up after %v, want %v at least", took, lastWrite)
	}
	close(g.open)
	<-q.ended
	kept := strings.Count(g.String(), entry)
	if !strings.HasSuffix(g.String(), fmt.Sprintf("\nlost %d\n", entries-kept)) ||
		kept < queueBytes/1000 || kept > 2*queueBytes/1000 {
		t.Errorf("the log has %d of %d entries, and ends with %q; want as many entries as "+
			"the queue holds, and then the number of lost entries", kept, entries,
			g.String()[max(0, g.text.Len()-20):])
	}
}

// A full disk cuts off entry three after 5 bytes. Entry four must begin a new line.
func TestAnEntryAfterAFullDiskBeginsANewLine(t *testing.T) {
	t.Parallel()
	g := newGate(10)
	q := newLogQueue(g)
	q.setOnLoss(func(n int) { fmt.Fprintf(q, "lost %d\n", n) })
	close(g.open)
	fmt.Fprint(q, "entry one\n")
	fmt.Fprint(q, "entry two\n")
	testkit.Until(t, "entry two counts as lost", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.lost == 1
	})
	g.mu.Lock()
	g.room = 15
	g.mu.Unlock()
	fmt.Fprint(q, "entry three\n")
	testkit.Until(t, "entry three counts as lost", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.lost == 2
	})
	g.mu.Lock()
	g.room = -1
	g.mu.Unlock()
	fmt.Fprint(q, "entry four\n")
	q.close()
	if got, want := g.String(), "entry one\nentry\nentry four\nlost 2\n"; got != want {
		t.Errorf("the output has %q, want %q", got, want)
	}
}

// If the reader of the log has ended, entries are lost, and nothing else fails.
func TestAReaderThatIsGoneCostsEntriesOnly(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	q := newLogQueue(w)
	fmt.Fprint(q, "an entry\n")
	q.close()
	if q.lost != 1 {
		t.Errorf("%d entries are lost, want 1", q.lost)
	}
}

// If the queue has no more room for the log, it still has room for audit lines.
func TestAuditLinesHaveRoomOfTheirOwn(t *testing.T) {
	t.Parallel()
	g := newGate(-1)
	q := newLogQueue(g)
	entry := []byte(strings.Repeat("x", 1<<10-1) + "\n")
	for range 3 * queueBytes / len(entry) {
		q.Write(entry)
	}
	const line = "an audit line\n"
	q.forAudit().Write([]byte(line))
	for range 3 * auditBytes / len(entry) { // the room for audit lines is limited, too
		q.forAudit().Write(entry)
	}
	q.mu.Lock()
	if waits := len(q.waiting); waits > queueBytes+auditBytes {
		t.Errorf("%d bytes wait in the queue, which is more than its limits", waits)
	}
	q.mu.Unlock()
	close(g.open)
	q.close()
	if !strings.Contains(g.String(), line) {
		t.Error("the log lacks the audit line, for which the queue keeps room of its own")
	}
}
