package session_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// After the answer of a Close, the end of the connection goes on in the background: the session
// sends close_notify, and waits until the peer's system has acknowledged all bytes.

// A slowEnd is a rig in which this work in the background takes long. For each connection, the work
// waits until the channel free is closed, or until the context of the work is done.
type slowEnd struct {
	*rig
	free  chan struct{}
	begun atomic.Int32 // connections whose work in the background has begun
	cut   atomic.Int32 // connections whose context was done before free was closed
	left  atomic.Int32 // connections whose work in the background has ended
}

func newSlowEnd(t *testing.T, timeout time.Duration) *slowEnd {
	s := &slowEnd{free: make(chan struct{})}
	s.rig = newRig(t, timeouts(session.Timeouts{Close: timeout}),
		func(e *fakeengine.Engine, _ *session.Config) {
			e.Hook = func(ctx context.Context, op fakeengine.Op) error {
				if op != fakeengine.Close {
					return nil
				}
				s.begun.Add(1)
				defer s.left.Add(1)
				select {
				case <-s.free:
				case <-ctx.Done():
					s.cut.Add(1)
				}
				return nil
			}
		})
	return s
}

// startEnd calls End on a goroutine. It returns a channel, which is closed when End has returned.
func (s *slowEnd) startEnd() <-chan struct{} {
	over := make(chan struct{})
	go func() { s.End(); close(over) }()
	return over
}

func TestCloseIsAnsweredBeforeEverythingHasArrived(t *testing.T) {
	t.Parallel()
	s := newSlowEnd(t, testkit.Patience)
	port := s.echo()
	h, other := s.client(port), s.client(port)
	s.ok(s.Close(h))
	testkit.Until(t, "the end of the connection has begun", func() bool {
		return s.begun.Load() == 1
	})
	read := s.start(s.Read(other, 1))
	over := s.startEnd()
	read.fails(kind.Cancelled) // the session's end has begun
	select {
	case <-over:
		t.Error("the session has ended before its connection")
	default:
	}
	close(s.free)
	await(t, over, "the session's end")
	if s.left.Load() == 0 {
		t.Error("the session has ended before its connection")
	}
	if n := s.cut.Load(); n != 0 {
		t.Error("the connection was cut short")
	}
	s.gone()
}

// TestTheEndDoesNotKeepWhatWasNotClosed: a Close that still runs in the background does not delay
// the end of connections that were not closed.
func TestTheEndDoesNotKeepWhatWasNotClosed(t *testing.T) {
	t.Parallel()
	s := newSlowEnd(t, testkit.Patience)
	defer close(s.free)
	port := s.echo()
	closed, other := s.client(port), s.client(port)
	s.ok(s.Close(closed))
	read := s.start(s.Read(other, 1))
	s.startEnd()
	testkit.Until(t, "the end of the connection that was not closed", func() bool {
		_, conns := s.eng.Open()
		// Open no longer counts a connection whose end has begun.
		return conns == 0 && read.ended()
	})
}

// TestHurryCutsShortWhatIsBeingFinished: the session's end waits for the work in the background. If
// Hurry is called, this work is cut short.
func TestHurryCutsShortWhatIsBeingFinished(t *testing.T) {
	t.Parallel()
	s := newSlowEnd(t, testkit.Patience)
	s.ok(s.Close(s.client(s.echo())))
	testkit.Until(t, "the end of the connection has begun", func() bool {
		return s.begun.Load() == 1
	})
	over := s.startEnd()
	s.Hurry()
	await(t, over, "the session's end")
	if n := s.cut.Load(); n != 1 {
		t.Errorf("%d connections were cut short, want 1", n)
	}
}

func TestFinishingMeetsTheCloseTimeout(t *testing.T) {
	t.Parallel()
	s := newSlowEnd(t, moment)
	s.ok(s.Close(s.client(s.echo())))
	s.gone()
	if n := s.cut.Load(); n != 1 {
		t.Errorf("%d connections were cut short, want 1", n)
	}
}

// TestFewAreFinishedAtTheSameTime: if MostFinishing closes run in the background, a further Close
// waits until its own connection has finished.
func TestFewAreFinishedAtTheSameTime(t *testing.T) {
	t.Parallel()
	s := newSlowEnd(t, testkit.Patience)
	port := s.echo()
	for range session.MostFinishing {
		s.ok(s.Close(s.client(port)))
	}
	one := s.start(s.Close(s.client(port)))
	testkit.Until(t, "the end of all connections has begun", func() bool {
		return s.begun.Load() == session.MostFinishing+1
	})
	if one.ended() {
		t.Error("MostFinishing closes run in the background, but a further Close did " +
			"not wait")
	}
	close(s.free)
	one.ok()
	s.gone()
}
