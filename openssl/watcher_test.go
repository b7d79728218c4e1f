package openssl_test

import (
	"io"
	"slices"
	"sync"
	"testing"
)

// stays is a Watcher that remembers what it is told.
type stays struct {
	sync.Mutex
	inside map[int]bool
	seen   []stay
	nested []stay // entered by a thread that was in the library already
}

type stay struct {
	method string
	tag    int32
}

func (s *stays) Enter(thread int, method string, tag int32) {
	s.Lock()
	defer s.Unlock()
	if s.inside[thread] {
		s.nested = append(s.nested, stay{method, tag})
	}
	s.inside[thread] = true
	if v := (stay{method, tag}); !slices.Contains(s.seen, v) {
		s.seen = append(s.seen, v)
	}
}

func (s *stays) Leave(thread int) {
	s.Lock()
	defer s.Unlock()
	delete(s.inside, thread)
}

func TestWatcherIsToldTheMethodAndTheConnection(t *testing.T) {
	// The test needs a new process, because a Watcher must be set before the library is used.
	if elsewhere(t) {
		return
	}
	w := &stays{inside: map[int]bool{}}
	load(t).Watcher = w
	for i, s := range []setup{setups[0], setups[2]} {
		c, peer := s.pair(t)
		c.SetTag(int32(i + 5))
		go io.Copy(struct{ io.Writer }{peer}, struct{ io.Reader }{peer})
		if err := c.Handshake(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(bounded(t), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadSome(bounded(t), 10); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := c.CloseWrite(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	w.Lock()
	defer w.Unlock()
	for _, want := range []stay{
		{"tls.Handshake", 5}, {"tls.Write", 5}, {"tls.Read", 5}, {"tls.Shutdown", 5},
		{"tls.Accept", 6}, {"tls.Write", 6}, {"tls.Read", 6}, {"tls.Close", 6},
	} {
		if !slices.Contains(w.seen, want) {
			t.Errorf("%v is not among %v", want, w.seen)
		}
	}
	if len(w.nested) != 0 {
		t.Errorf("threads that were in the library have entered it again: %v", w.nested)
	}
	if len(w.inside) != 0 {
		t.Errorf("these threads have entered the library and not left it: %v", w.inside)
	}
}
