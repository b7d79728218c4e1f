package rpc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/session"
)

// caller is the connection as the reader sees it. Before it waits for more, it
// sends the answers that were kept to go out together. And it ends a session that is idle: there is
// no call in flight, and for IdleTimeout nothing has come, be it between messages or in the middle of one.
type caller struct{ *server }

func (c caller) Read(p []byte) (int, error) {
	c.flush()
	if c.IdleTimeout > 0 {
		c.heard = time.Now() // of what came through shared memory
	}
	for {
		n, err := c.receive(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			if c.IdleTimeout > 0 {
				c.heard = time.Now()
			}
			return n, err
		}
		left := c.idleLeft()
		if left <= 0 {
			// Most callers learn of it when they make their next call.
			c.refuse(&session.Error{Kind: kind.Timeout, Why: fmt.Sprintf(
				"the session was idle for %v, the longest that this tlsd allows (--session-idle-timeout), and was ended", c.IdleTimeout)}, nil)
			return 0, fmt.Errorf("nothing has come from the caller for %v: %w", c.IdleTimeout, err)
		}
		c.conn.SetReadDeadline(time.Now().Add(left))
	}
}

// listenOn begins to watch for idleness. The deadline is not moved with all that comes, but
// when it has passed.
func (s *server) listenOn() {
	if s.IdleTimeout > 0 {
		s.heard = time.Now()
		s.conn.SetReadDeadline(s.heard.Add(s.IdleTimeout))
	}
}

// idleLeft is for how long the session may still be idle.
func (s *server) idleLeft() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) > 0 {
		return s.IdleTimeout
	}
	since := s.heard
	if s.freed.After(since) {
		since = s.freed
	}
	return s.IdleTimeout - time.Since(since)
}

// receive is conn.Read, which also takes the descriptor that comes with what is read first.
func (c caller) receive(p []byte) (int, error) {
	if c.spoken {
		return c.conn.Read(p)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.conn.ReadMsgUnix(p, oob)
	if n > 0 {
		c.spoken = true
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, _ := unix.ParseUnixRights(&m)
		for _, fd := range fds {
			c.dropShared()
			c.shared = fd
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF // as conn.Read gives it
	}
	return max(n, 0), err // it is -1 with an error
}

// dropShared closes the descriptor that the caller has sent.
func (s *server) dropShared() {
	if s.shared >= 0 {
		unix.Close(s.shared)
		s.shared = -1
	}
}
