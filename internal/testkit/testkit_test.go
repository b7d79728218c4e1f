package testkit

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/sockets"
)

// A stand-in notes how a test was ended.
type standIn struct {
	testing.TB
	ended string
}

func (s *standIn) Helper()                           {}
func (s *standIn) Fatalf(format string, args ...any) { s.end("fails: "+format, args) }
func (s *standIn) Skipf(format string, args ...any)  { s.end("is skipped: "+format, args) }

// end notes the first end. A real test would not go on after its first end.
func (s *standIn) end(format string, args []any) {
	if s.ended == "" {
		s.ended = fmt.Sprintf(format, args...)
	}
}

// If the machine lacks a tool, a test that needs the tool is skipped. Under TLSD_TEST_STRICT=1 the
// test fails.
func TestALackOfAToolIsNeverSilent(t *testing.T) {
	for strict, want := range map[string]string{"": "is skipped: ", "1": "fails: "} {
		t.Setenv("TLSD_TEST_STRICT", strict)
		s := &standIn{}
		Tool(s, "no-such-program")
		if !strings.HasPrefix(s.ended, want) ||
			!strings.Contains(s.ended, "no-such-program") {
			t.Errorf("TLSD_TEST_STRICT=%q: the test %q; want %q and the name", strict,
				s.ended, want)
		}
	}
	s := &standIn{}
	if path := Tool(s, "sh"); s.ended != "" {
		t.Errorf("sh is installed, but the test %s", s.ended)
	} else if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// The helper Until calls a function again and again. As soon as the function returns true, Until
// returns, without a further call.
func TestUntilEndsWithTheEvent(t *testing.T) {
	t.Parallel()
	asked := 0
	Until(t, "the third question", func() bool { asked++; return asked == 3 })
	if asked != 3 {
		t.Errorf("Until has called its function %d times, want 3", asked)
	}
}

// Receive returns the next value of a channel, or the zero value if the channel is closed.
func TestReceiveEndsWithTheValueOrTheEnd(t *testing.T) {
	t.Parallel()
	from := make(chan int, 1)
	from <- 3
	close(from)
	for _, want := range []int{3, 0} {
		if got := Receive(t, from, "a value"); got != want {
			t.Errorf("received %d, want %d", got, want)
		}
	}
}

// The port that Port returns is taken on all addresses. A socket without SO_REUSEADDR, such as a
// client with an address of its own, cannot get the port on another address of the loopback.
func TestAPortIsKeptOnAllAddresses(t *testing.T) {
	t.Parallel()
	port := Port(t)
	fd, err := sockets.New(syscall.AF_INET, syscall.SOCK_STREAM)
	Must(t, err)
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port,
		Addr: [4]byte{127, 0, 0, 2}}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("bind to 127.0.0.2:%d: %v, want %v", port, err, syscall.EADDRINUSE)
	}
}
