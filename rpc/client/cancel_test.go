package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"tlsd/rpc/wire"
)

// soon bounds waits that would otherwise have no end.
const soon = 50 * time.Millisecond

// cancelled reads the notification that cancels m.
func (s *standIn) cancelled(m *asked) {
	n := s.expect("$/cancelRequest", fmt.Sprintf(`{"id":%s}`, m.ID))
	if n.ID != nil {
		s.t.Errorf("stand-in: $/cancelRequest has the id %s, want a notification", n.ID)
	}
}

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
		{"timed out", context.DeadlineExceeded, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), soon)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := tt.ctx()
			defer cancel()
			c := talk(t, func(s *standIn) {
				m := s.expect("tls.Read", "[1,10]")
				if tt.cause == context.Canceled {
					cancel()
				}
				s.cancelled(m)
				s.error(m, -32010, "tls.Read: handle 1: cancelled by the caller", "cancelled")
				s.result(s.expect("tls.Backend", ""), `"openssl"`)
				s.end()
			})
			_, err := c.Read(ctx, 1, 10)
			e := wantKind(t, err, KindCancelled)
			if !errors.Is(err, tt.cause) || e.Message != "tls.Read: handle 1: cancelled by the caller" {
				t.Errorf("error %v, cause %v; want %v", err, e.cause, tt.cause)
			}
			if _, err := c.Backend(t.Context()); err != nil {
				t.Errorf("the session did not live on: %v", err)
			}
		})
	}
}

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
		t.Errorf("got %d, %v; want the handle, which somebody has to close", h, err)
	}
}

func TestACancellationThatIsNotAnsweredEndsTheSession(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		s.cancelled(s.expect("tls.Read", ""))
		s.end() // the client hangs up
	})
	c.grace = soon
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	_, err := c.Read(ctx, 1, 10)
	if wantKind(t, err, KindLost); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v does not tell of the deadline", err)
	}
	_, err = c.Backend(t.Context())
	wantKind(t, err, KindLost)
}

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
		t.Errorf("error %v", err)
	}
	if _, err := c.Backend(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAWriteThatTlsdDoesNotTakeCanBeCancelled(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	c := talk(t, func(s *standIn) {
		s.r.ReadByte()
		close(begun)
		<-release // and reads no more
	})
	defer close(release)
	c.grace = soon
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	write := func() <-chan error {
		failed := make(chan error, 1)
		go func() {
			_, err := c.Write(ctx, 1, make([]byte, wire.MaxBlob))
			failed <- err
		}()
		return failed
	}
	first := write()
	<-begun
	second := write() // which cannot even begin
	cancel()
	err := <-first
	if wantKind(t, err, KindLost); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, context.Canceled) {
		t.Errorf("the first failed with %v", err)
	}
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the second failed with %v", err)
	}
	_, err = c.Backend(t.Context())
	wantKind(t, err, KindLost) // half a message has been sent
}

func TestTheDeadlineOfOneWriteDoesNotBindTheNext(t *testing.T) {
	t.Parallel()
	taken := make(chan struct{})
	c := talk(t, func(s *standIn) {
		<-taken // the context has ended while the client was writing
		m := s.expect("tls.Write", "[1]")
		s.cancelled(m)
		s.error(m, -32010, "cancelled", "cancelled")
		for range 3 {
			s.result(s.expect("tls.Backend", ""), `"openssl"`)
		}
		s.end()
	})
	ctx, cancel := context.WithCancel(t.Context())
	context.AfterFunc(ctx, func() { close(taken) })
	time.AfterFunc(soon, cancel)
	_, err := c.Write(ctx, 1, make([]byte, wire.MaxBlob))
	wantKind(t, err, KindCancelled)
	for range 3 {
		if _, err := c.Backend(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
