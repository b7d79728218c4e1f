package session

import (
	"bytes"
	"context"
	"errors"
	"time"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// Wait serves callers that have many handles and one thread. The rules:
//
//   - A handle takes part while its option watch is 1.
//   - A handle is ready if a Read or an Accept on it would not wait. Data, the peer's close_notify
//     and an error make a connection ready. A client that waits makes a context ready.
//   - A connection whose handshake has not begun is ready, because a Read on it fails at once.
//     While the handshake runs, the connection is not ready.
//   - Wait returns ready handles in turn, in the order of their numbers. So a busy handle does not
//     hide the others.
//   - A connection with a data channel does not take part. Its caller polls the channel.

const (
	opWait   = "tls.Wait"
	optWatch = "watch"
)

// Wait waits for a watched handle that is ready. The result is the Handle, or 0 after the timeout.
// With a negative timeout it waits without a limit.
func (s *Session) Wait(timeout time.Duration) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newCall(opWait, 0, func(ctx context.Context) (any, error) {
		var up <-chan time.Time
		if timeout >= 0 {
			t := time.NewTimer(timeout)
			defer t.Stop()
			up = t.C
		}
		for {
			s.mu.Lock()
			h, changed := s.nextReady(), s.nextChange()
			s.mu.Unlock()
			if h != 0 {
				return h, nil
			}
			select {
			case <-changed:
			case <-up:
				return Handle(0), nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	})
}

// nextChange returns a Go channel, which is closed when a call ends, or when a handle may have
// become ready. s.mu must be held.
func (s *Session) nextChange() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// notify closes the Go channel of nextChange. s.mu must be held.
func (s *Session) notify() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// nextReady returns the next ready handle after lastReady, or 0. s.mu must be held.
func (s *Session) nextReady() Handle {
	var first, next Handle
	for h, w := range s.watched {
		if !w.ready() {
			continue
		}
		if first == 0 || h < first {
			first = h
		}
		if h > s.lastReady && (next == 0 || h < next) {
			next = h
		}
	}
	if next == 0 {
		next = first
	}
	if next != 0 {
		s.lastReady = next
	}
	return next
}

// A waitable is a connection or a context.
type waitable interface {
	// ready says whether a Read or an Accept would not wait. s.mu must be held.
	ready() bool
}

// setWatch sets the option watch of an open handle.
func (s *Session) setWatch(h Handle, w waitable, value string) error {
	on, err := choice(value, "0", "1")
	if err != nil {
		return badValue(context.Background(), optWatch, value, "0 or 1", kind.Params, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if on == 1 {
		s.watched[h] = w
	} else {
		delete(s.watched, h)
	}
	return nil
}

func (c *connection) setWatch(value string) error {
	c.s.mu.Lock()
	err := c.stateError()
	c.s.mu.Unlock()
	if err != nil {
		return err
	}
	return c.s.setWatch(c.handle, c, value)
}

// watched says whether the option watch is 1.
func (c *serverContext) watched() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.watched[c.handle] != nil
}

// isClosed says whether a Go channel is closed, such as the channel done of a call.
func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (c *connection) ready() bool {
	switch {
	case c.closing || !isClosed(c.controlTail):
		return false
	case c.state != connReady:
		return true
	case c.pumps != nil:
		return false
	case c.flow.status().Read != stateOpen:
		return true
	case c.ahead != nil:
		return isClosed(c.ahead.done)
	case isClosed(c.readTail):
		c.beginReadAhead()
	}
	return false
}

func (c *serverContext) ready() bool {
	return !c.closing && isClosed(c.controlTail) && c.clientWaits()
}

// A readAhead has data that was read before a Read asked for it. Only a read can find out whether
// there is data, because a record of TLS may have no data for the caller.
type readAhead struct {
	stop context.CancelFunc
	done chan struct{} // closed when data and err are set
	// Until done is closed, only the goroutine of beginReadAhead uses data and err. After that,
	// only the Read that runs uses them.
	data []byte
	err  error
}

// aheadBytes is the most that is read ahead. The data stays in memory until a Read takes it.
const aheadBytes = 4 << 10

// beginReadAhead begins to read ahead. It may be called only while no Read runs. Later Reads wait
// for the result. s.mu must be held.
func (c *connection) beginReadAhead() {
	s, t := c.s, c.tls
	ctx, stop := context.WithCancel(s.ctx)
	a := &readAhead{stop: stop, done: make(chan struct{})}
	c.ahead = a
	s.background.Go(func() {
		defer stop()
		data, err := t.ReadSome(ctx, aheadBytes)
		// The data may be in memory for a long time. So it is copied from the engine's
		// large buffer into a small one.
		a.data, a.err = bytes.Clone(data), err
		openssl.Recycle(data)
		s.mu.Lock()
		defer s.mu.Unlock()
		close(a.done)
		s.notify()
	})
}

// stopAhead ends the read-ahead before the connection is closed. The data that was read is lost.
func (c *connection) stopAhead() {
	c.s.mu.Lock()
	a := c.ahead
	c.s.mu.Unlock()
	if a != nil {
		a.stop()
		<-a.done
	}
}

// readSome returns the data that was read ahead. If there is none, it reads from the engine.
func (c *connection) readSome(ctx context.Context, t EngineConn, limit int) ([]byte, error) {
	s := c.s
	s.mu.Lock()
	a := c.ahead
	s.mu.Unlock()
	if a == nil {
		return t.ReadSome(ctx, limit)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if n := min(limit, len(a.data)); n < len(a.data) {
		part := append([]byte(nil), a.data[:n]...)
		a.data = append([]byte(nil), a.data[n:]...)
		return part, nil
	}
	s.mu.Lock()
	c.ahead = nil
	s.mu.Unlock()
	if errors.Is(a.err, context.Canceled) && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return a.data, a.err
}
