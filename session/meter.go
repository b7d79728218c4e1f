package session

import "sync/atomic"

// The administrator sees counts of what the sessions do. Counting costs a few additions. No
// goroutine wakes up to collect the counts, so an idle session costs nothing.

// A Meter counts what the sessions of a process do. Several goroutines call its methods, which must
// not wait.
type Meter interface {
	// Moved counts bytes of connections: from peers to callers, and from callers to peers. A
	// negative number takes back bytes that could not be delivered.
	Moved(received, sent int)
	// Held counts handles that were opened. A negative number counts closed ones.
	Held(connections, contexts int)
	// HandshakeDone counts a handshake that has ended.
	HandshakeDone(Handshake)
	// Shows counts uses of a certificate by server contexts. A negative number counts uses that
	// have ended.
	Shows(c Certificate, uses int)
	// Reloaded counts changes of a context's files. used says whether the new files are in use.
	Reloaded(used bool)
}

// A meter counts what one session does, and passes the counts on to the Meter of the process.
type meter struct {
	received, sent atomic.Int64
	next           Meter // the Meter of the process, or nil

	conns, contexts int // open handles at the last call of count; guarded by the session's lock
}

func (m *meter) moved(received, sent int) {
	if m == nil || received == 0 && sent == 0 {
		return
	}
	m.received.Add(int64(received))
	m.sent.Add(int64(sent))
	if m.next != nil {
		m.next.Moved(received, sent)
	}
}

// count reports changes of the number of open handles to the Meter. It must be called after each
// change. s.mu must be held.
func (s *Session) count() {
	m := &s.meter
	conns, contexts := len(s.conns)-m.conns, len(s.contexts)-m.contexts
	m.conns, m.contexts = len(s.conns), len(s.contexts)
	if m.next != nil {
		m.next.Held(conns, contexts)
	}
}

// shows reports to the Meter which certificates the context uses from now on. s.mu must be held.
func (c *serverContext) shows(sources map[string]source) {
	next := c.s.meter.next
	if next == nil || c.listeners == nil { // listeners is nil: the context is closed
		return
	}
	before := c.shown
	c.shown = nil
	for _, from := range sources {
		if from.leaf != nil {
			c.shown = append(c.shown, from.certificate())
		}
	}
	for _, cert := range c.shown {
		next.Shows(cert, 1)
	}
	for _, cert := range before {
		next.Shows(cert, -1)
	}
}
