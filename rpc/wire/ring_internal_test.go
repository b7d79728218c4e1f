package wire

import (
	"errors"
	"io"
	"net"
	"testing"

	"tlsd/internal/testring"
)

// nobody is a socket over which nothing may be waited for.
type nobody struct{ t *testing.T }

func (n nobody) Read([]byte) (int, error) {
	n.t.Error("it has waited for a bell")
	return 0, io.EOF
}

func newSource(t *testing.T, bells io.Reader) (*ringSource, *testring.Memory) {
	t.Helper()
	conn, other := net.Pipe()
	t.Cleanup(func() { conn.Close(); other.Close() })
	m := testring.New(t, conn, leastRing)
	rings, err := OpenRings(m.FD)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rings.Close)
	return &ringSource{in: &rings.in, bells: bells}, m
}

// TestWhatComesBetweenALookAndTheSleepIsNotSleptOver: for that, no bell is rung.
func TestWhatComesBetweenALookAndTheSleepIsNotSleptOver(t *testing.T) {
	t.Parallel()
	for _, had := range []int{0, 5} {
		for name, come := range map[string]int{"some": 3, "all that there is room for": leastRing - had} {
			s, m := newSource(t, nobody{t})
			m.To.Sleeps.Store(testring.Awake)
			m.Put(make([]byte, had))
			if n := len(s.ahead()); n != had {
				t.Fatalf("%d bytes are ahead, want %d", n, had)
			}
			m.Put(make([]byte, come))
			if err := s.more(); err != nil {
				t.Errorf("%s behind %d: %v", name, had, err)
			}
			if n := len(s.ahead()); n != had+come {
				t.Errorf("%s behind %d: %d bytes are ahead", name, had, n)
			}
			if m.To.Sleeps.Load() != testring.Awake {
				t.Error("it says that it sleeps")
			}
		}
	}
}

// TestWhatWasAheadStaysThere though the other side takes it back, or says what cannot be; and that is an error when there is
// need for more.
func TestWhatWasAheadStaysThere(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]uint32{
		"some back":        5,
		"all back":         0,
		"more than all":    ^uint32(0),
		"more than a ring": leastRing + 1,
		"half around":      1 << 31,
	} {
		s, m := newSource(t, nobody{t})
		m.Put(make([]byte, 10))
		before := s.ahead()
		m.To.Head.Store(head)
		if got := s.ahead(); len(got) != len(before) {
			t.Errorf("%s: %d bytes are ahead, where there were %d", name, len(got), len(before))
		}
		if err := s.more(); !errors.Is(err, errRules) {
			t.Errorf("%s: more gives %v", name, err)
		}
		m.To.Head.Store(10)
		if err := s.more(); !errors.Is(err, errRules) {
			t.Errorf("%s, and then right again: more gives %v", name, err)
		}
	}
}
