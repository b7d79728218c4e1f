package session

import (
	"context"
	"net"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
)

// A signal tells a caller with an event loop that a client waits for an Accept. The caller makes a
// pair of stream sockets, and sends both ends to the session. It keeps a duplicate of the first
// end, and polls this duplicate. While a client waits, the first end has one byte to read. The
// session sends this byte on the second end. When no client waits any more, the session itself
// receives the byte from the first end. So the duplicate is readable exactly while an Accept would
// not wait, and the caller has nothing to count and nothing to read.
//
// The session does not trust the sockets, just as it does not trust a data channel. No call on them
// can block.
type signal struct {
	polled, second *channel // the first end and the second end
	on             bool     // the first end has the byte; guarded by the session's lock
}

const opSignal = "tls.Signal"

// Signal gives a context the pair of sockets of its signal. The session owns the pair from now on.
// The result is 0.
func (s *Session) Signal(ctxHandle Handle, polled, second *net.UnixConn) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var call *Call
	run := func(_ context.Context, c *serverContext) (any, error) {
		g, err := newSignal(polled, second)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.signal != nil {
			return nil, fail(kind.State,
				"the context has a pair of sockets already, from an earlier call")
		}
		c.signal, call.pair = g, nil
		g.set(c.clientWaits())
		return 0, nil
	}
	call = s.onContext(opSignal, ctxHandle, run).instant()
	call.pair = []*net.UnixConn{polled, second}
	return call
}

func newSignal(polled, second *net.UnixConn) (*signal, error) {
	a, err := newChannel(polled)
	if err != nil {
		return nil, err
	}
	b, err := newChannel(second)
	if err != nil {
		return nil, err
	}
	return &signal{polled: a, second: b}, nil
}

// set sends the byte if on is true, and receives it if on is false. g may be nil. The session's
// lock must be held.
func (g *signal) set(on bool) {
	if g == nil || g.on == on {
		return
	}
	g.on = on
	if on {
		g.put()
		return
	}
	g.polled.raw.Control(func(fd uintptr) { _, _ = receive(fd, make([]byte, 1), 0) })
}

// put sends the byte. This fails if the caller has closed the first end, or has filled its queue.
// put ignores the error, which harms only this caller.
func (g *signal) put() {
	const flags = unix.MSG_DONTWAIT | noSignal
	g.second.raw.Control(func(fd uintptr) {
		_, _ = unix.SendmsgN(int(fd), []byte{1}, nil, nil, flags)
	})
}

// sweep must remove every message that carries a descriptor. sweepMost is the most messages that
// sweep receives from one end. With Linux's default settings, a queue has room for fewer messages
// with descriptors. The limit protects the session from a caller that sends without a pause.
const sweepMost = 1024

// sweep empties the queues of both ends. A caller may send messages with descriptors into these
// queues. One of the descriptors may be the caller's own end of the control connection. While it is
// in a queue, the session cannot see that the caller has closed the connection.
//
// The receive has no room for descriptors, so the kernel closes the descriptors of each message. If
// a client waits, sweep then sends the session's own byte again. The session's lock must be held.
func (g *signal) sweep() {
	p := pieces.Get().(*piece)
	defer pieces.Put(p)
	for _, ch := range []*channel{g.polled, g.second} {
		ch.raw.Control(func(fd uintptr) {
			n := 1
			for i := 0; i < sweepMost && n > 0; i++ {
				n, _ = receive(fd, p[:], 0)
			}
		})
	}
	if g.on {
		g.put()
	}
}

func (g *signal) close() {
	if g != nil {
		g.polled.close()
		g.second.close()
	}
}

// clientWaits says whether an Accept would get a client at once. s.mu must be held.
func (c *serverContext) clientWaits() bool {
	for _, l := range c.listeners {
		if isClosed(l.opened) && l.err == nil && len(l.arrived) > 0 {
			return true
		}
	}
	return false
}

// clientsChanged updates the signal, and wakes the Waits. It is called after each change of the
// listeners, and of the clients that wait for an Accept.
func (c *serverContext) clientsChanged() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.signal.set(c.clientWaits())
	c.s.notify()
}

// Attended says whether the session has a context that listens and has a signal. If so, the session
// is not idle, although no call runs: the caller polls the signal in place of a call of Accept.
//
// Attended also sweeps the signals. No other function does. So each check for idleness must call
// Attended, even if it knows already that the session is not idle.
func (s *Session) Attended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	attended := false
	for _, c := range s.contexts {
		if c.signal != nil {
			c.signal.sweep()
			attended = attended || len(c.listeners) > 0
		}
	}
	return attended
}
