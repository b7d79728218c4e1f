package session

import "sync/atomic"

// What sessions do is counted, for the administrator. A count is a few additions to memory: nothing
// reports it, so an idle session does nothing.

// A Meter counts what the sessions of a process do. Its methods are called by several goroutines
// and must not wait.
type Meter interface {
	// Moved counts bytes of connections: from peers to the caller, and from the caller to
	// peers. What could not be delivered is taken back by a number below zero.
	Moved(received, sent int)
	// Held counts handles that were opened, or, below zero, closed.
	Held(connections, contexts int)
	// Shaken counts a handshake that has ended.
	Shaken(Handshake)
	// Shows counts uses of a certificate by servers that begin, or, below zero, end.
	Shows(c Certificate, uses int)
	// Reloaded counts files of a context that have changed, and whether they are used now.
	Reloaded(used bool)
}

// meter counts what one session does, and passes that on.
type meter struct {
	received, sent atomic.Int64
	next           Meter // or nil

	conns, contexts int // that were passed on; guarded by the session's lock
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

// count passes on how many handles there are. It is called after each change. s.mu must be held.
func (s *Session) count() {
	m := &s.meter
	conns, contexts := len(s.conns)-m.conns, len(s.contexts)-m.contexts
	m.conns, m.contexts = len(s.conns), len(s.contexts)
	if m.next != nil {
		m.next.Held(conns, contexts)
	}
}

// shows passes on which certificates the context has from now on. s.mu must be held.
func (c *serverContext) shows(sources map[string]source) {
	next := c.s.meter.next
	if next == nil || c.listeners == nil { // closed
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
