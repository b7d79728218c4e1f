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

// An idleReader is the connection as the wire.Reader sees it. It ends a session that is idle for
// IdleTimeout. A session is idle if no call is in flight, nothing comes from the caller, and no
// byte moves on a data channel. A session that waits for clients by a tls.Signal is not idle.
type idleReader struct{ *server }

func (c idleReader) Read(p []byte) (int, error) {
	// The read deadline is the earlier of two times: when descriptors that came without a call
	// must be closed (AnswerTimeout), and when the session has been idle for IdleTimeout. While
	// Read waits, the two times can change, but the deadline stays. So when the deadline
	// passes, the loop computes both times again.
	for {
		n, err := c.descriptors.receive(c.conn, p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			if c.IdleTimeout > 0 {
				c.lastReceived = time.Now()
			}
			if errors.Is(err, io.EOF) {
				err = io.EOF // ReadMsgUnix wraps it
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
		due, some := c.descriptors.closeLate(c.AnswerTimeout)
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
			// The text tells what has happened, because most callers read it only at
			// their next call, perhaps much later.
			why := fmt.Sprintf("the session was idle for %v, the limit of this tlsd "+
				"(--session-idle-timeout), and has ended", c.IdleTimeout)
			c.refuse(&session.Error{Kind: kind.Timeout, Why: why}, nil)
			return 0, fmt.Errorf("nothing has come from the caller for %v: %w",
				c.IdleTimeout, err)
		}
		if some {
			left = min(left, due)
		}
		c.conn.SetReadDeadline(time.Now().Add(left))
	}
}

// startIdleTimer sets the first read deadline. Bytes that come later do not move the deadline,
// unless descriptors wait. When the deadline has passed, Read computes how long the session may
// still be idle, and sets a new deadline.
func (s *server) startIdleTimer() {
	if s.IdleTimeout > 0 {
		s.lastReceived = time.Now()
		s.conn.SetReadDeadline(s.lastReceived.Add(s.IdleTimeout))
	}
}

// idleLeft is how long the session may still be idle.
func (s *server) idleLeft() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Attended() also discards what the caller has sent into the sockets of signals. So it must
	// run even if a call is in flight.
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
