package rpc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"tlsd/internal/kind"
	"tlsd/session"
)

// caller is the connection as the reader sees it. It ends a session that is idle: for IdleTimeout
// no call was in flight, nothing has come from the caller, be it between messages or in the middle
// of one, and no byte has moved on a data channel. A session that waits for clients with a signal
// is not idle.
type idleReader struct{ *server }

func (c idleReader) Read(p []byte) (int, error) {
	for {
		n, err := c.descriptors.receive(c.conn, p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			if c.IdleTimeout > 0 {
				c.lastReceived = time.Now()
			}
			if errors.Is(err, io.EOF) {
				err = io.EOF // without what ReadMsgUnix puts around it
			}
			if len(c.descriptors.waiting) > 0 && n > 0 {
				left := c.AnswerTimeout - time.Since(c.descriptors.arrived)
				if c.IdleTimeout > 0 {
					left = min(left, c.IdleTimeout)
				}
				c.conn.SetReadDeadline(time.Now().Add(left))
			}
			return n, err
		}
		due, some := c.descriptors.due(c.AnswerTimeout)
		if c.IdleTimeout == 0 {
			next := time.Time{}
			if some {
				next = time.Now().Add(due)
			}
			c.conn.SetReadDeadline(next)
			continue
		}
		left := c.idleLeft()
		if left <= 0 {
			// Most callers learn of it when they make their next call.
			c.refuse(&session.Error{Kind: kind.Timeout, Why: fmt.Sprintf(
				"the session was idle for %v, the limit of this tlsd (--session-idle-timeout), and has ended", c.IdleTimeout)}, nil)
			return 0, fmt.Errorf("nothing has come from the caller for %v: %w", c.IdleTimeout, err)
		}
		if some {
			left = min(left, due)
		}
		c.conn.SetReadDeadline(time.Now().Add(left))
	}
}

// listenOn begins to watch for idleness. The deadline is not moved with all that comes, but
// when it has passed.
func (s *server) startIdleTimer() {
	if s.IdleTimeout > 0 {
		s.lastReceived = time.Now()
		s.conn.SetReadDeadline(s.lastReceived.Add(s.IdleTimeout))
	}
}

// idleLeft is for how long the session may still be idle.
func (s *server) idleLeft() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Attended is the first, because it sweeps also while a call waits.
	if s.sess.Attended() || len(s.calls) > 0 {
		return s.IdleTimeout
	}
	since := s.lastReceived
	for _, t := range []time.Time{s.lastAnswered, s.sess.LastMoved()} {
		if t.After(since) {
			since = t
		}
	}
	return s.IdleTimeout - time.Since(since)
}
