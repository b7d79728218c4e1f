package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// soon is a short time, for timeouts that must pass, and for delays.
const soon = 50 * time.Millisecond

// An expiring context has a deadline that passes when the test calls expire.
type expiring struct {
	context.Context
	expire context.CancelFunc
}

func newExpiring() expiring {
	ctx, cancel := context.WithCancelCause(context.Background())
	return expiring{ctx, func() { cancel(context.DeadlineExceeded) }}
}

func (e expiring) Err() error { return context.Cause(e.Context) }

// cancelled reads the notification that cancels m.
func (s *standIn) cancelled(m *asked) {
	n := s.expect("$/cancelRequest", fmt.Sprintf(`{"id":%s}`, m.ID))
	if n.ID != nil {
		s.t.Errorf("stand-in: $/cancelRequest has the id %s, want a notification", n.ID)
	}
}

// If the context of a call ends, the client cancels the call in tlsd. The error has the kind
// cancelled, tlsd's message, and the context's error. The session goes on.
func TestACancelledCallIsCancelledInTlsdToo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		cause error
		ctx   func() (context.Context, context.CancelFunc)
	}{
		{"cancelled", context.Canceled, func() (context.Context, context.CancelFunc) {
			return context.WithCancel(context.Background())
		}},
		{"timed out", context.DeadlineExceeded,
			func() (context.Context, context.CancelFunc) {
				e := newExpiring()
				return e, e.expire
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := tt.ctx()
			defer cancel()
			c := talk(t, func(s *standIn) {
				m := s.expect("tls.Read", "[1,10]")
				cancel()
				s.cancelled(m)
				s.error(m, -32010,
					"tls.Read: handle 1: cancelled by the caller", "cancelled")
				s.result(s.expect("tls.Backend", ""), `"openssl"`)
				s.end()
			})
			_, err := c.Read(ctx, 1, 10)
			e := wantKind(t, err, KindCancelled)
			if !errors.Is(err, tt.cause) ||
				e.Message != "tls.Read: handle 1: cancelled by the caller" {
				t.Errorf("the error is %v, its cause %v; want tlsd's message, the "+
					"cause %v", err, e.cause, tt.cause)
			}
			if _, err := c.Backend(t.Context()); err != nil {
				t.Errorf("the session does not go on: %v", err)
			}
		})
	}
}

// If tlsd completes a call before it reads the cancellation, the call succeeds. Otherwise the
// handle that the call has made would be lost.
func TestACallThatWasQuickerThanItsCancellationHasSucceeded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := talk(t, func(s *standIn) {
		m := s.expect("tls.NewClient", "")
		cancel()
		s.cancelled(m)
		s.result(m, "5")
		s.end()
	})
	if h, err := c.NewClient(ctx, "localhost", 443); h != 5 || err != nil {
		t.Errorf("NewClient returns %d, %v; want the handle 5", h, err)
	}
}

// If tlsd does not answer a cancelled call within cancelTimeout, the client closes the session.
func TestACancellationThatIsNotAnsweredEndsTheSession(t *testing.T) {
	t.Parallel()
	ctx := newExpiring()
	c := talk(t, func(s *standIn) {
		m := s.expect("tls.Read", "")
		ctx.expire()
		s.cancelled(m)
		s.end() // the client closes the connection
	})
	c.cancelTimeout = soon
	_, err := c.Read(ctx, 1, 10)
	if wantKind(t, err, KindLost); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v; want the context's error in it", err)
	}
	_, err = c.Backend(t.Context())
	wantKind(t, err, KindLost)
}

// If the context has ended before the call, the client sends nothing. The session goes on.
func TestACallWhoseContextHasEndedIsNotSent(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		s.result(s.expect("tls.Backend", ""), `"openssl"`)
		s.end()
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.NewClient(ctx, "localhost", 443)
	if wantKind(t, err, KindCancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v; want the context's error in it", err)
	}
	if _, err := c.Backend(t.Context()); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
}

// A Write that waits because tlsd does not read can be cancelled. If a part of its message was
// sent, the session is lost. If nothing was sent, only the Write fails.
func TestAWriteThatTlsdDoesNotTakeCanBeCancelled(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	c := talk(t, func(s *standIn) {
		s.r.ReadByte()
		close(begun)
		<-release // until then the stand-in reads no more
	})
	defer close(release)
	c.cancelTimeout = soon
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan error, 1)
	go func() {
		_, err := c.Write(ctx, 1, make([]byte, 1<<20))
		first <- err
	}()
	<-begun

	// A second Write cannot begin while the first is being sent. The cancellation of the second
	// Write harms no other call.
	short, stop := context.WithTimeout(t.Context(), soon)
	defer stop()
	_, err := c.Write(short, 1, []byte("x"))
	if wantKind(t, err, KindCancelled); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second Write fails with %v; want the deadline of its context", err)
	}

	cancel()
	err = <-first
	if wantKind(t, err, KindLost); !errors.Is(err, os.ErrDeadlineExceeded) ||
		!errors.Is(err, context.Canceled) {
		t.Errorf("the first Write fails with %v; want the cancellation of its context, "+
			"and the write deadline of the connection", err)
	}
	_, err = c.Backend(t.Context())
	wantKind(t, err, KindLost) // because half of the first Write was sent
}

// A deadlineConn records its write deadlines.
type deadlineConn struct {
	net.Conn
	mu   sync.Mutex
	set  int       // how many deadlines were set
	last time.Time // the deadline that was set most recently
}

func (c *deadlineConn) SetWriteDeadline(d time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set, c.last = c.set+1, d
	return c.Conn.SetWriteDeadline(d)
}

// If a call is cancelled while its message is being sent, the rest of the message gets a write
// deadline. The deadline is removed afterwards, so that it does not end the next write.
func TestTheDeadlineOfOneWriteDoesNotBindTheNext(t *testing.T) {
	t.Parallel()
	begun, cancelled := make(chan struct{}), make(chan struct{})
	ours, theirs := pair(t)
	conn := &deadlineConn{Conn: ours}
	c := New(conn)
	c.cancelTimeout = 2 * time.Minute // long: the rest of the message must be written in time
	play(t, theirs, func(s *standIn) {
		s.r.Peek(1)
		close(begun)
		<-cancelled // the client has set its write deadline
		m := s.expect("tls.Write", "")
		s.cancelled(m)
		s.error(m, -32010, "cancelled", "cancelled")
		s.result(s.expect("tls.Backend", ""), `"openssl"`)
		s.end()
	})
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-begun
		cancel()
		for { // until the write's deadline is set
			conn.mu.Lock()
			set := conn.set
			conn.mu.Unlock()
			if set > 0 {
				break
			}
			runtime.Gosched()
		}
		close(cancelled)
	}()
	_, err := c.Write(ctx, 1, make([]byte, 1<<20))
	wantKind(t, err, KindCancelled)
	conn.mu.Lock()
	if !conn.last.IsZero() || conn.set != 2 {
		t.Errorf("%d write deadlines were set, and the last one is %v; want 2, the last "+
			"one zero", conn.set, conn.last)
	}
	conn.mu.Unlock()
	if _, err := c.Backend(t.Context()); err != nil {
		t.Fatal(err)
	}
}
