package vitals

import (
	"runtime"
	"testing"
)

// pages makes one page for n sessions, and maps it twice: for the supervisor, and for the worker.
func pages(t *testing.T, n int) (supervisor, worker *Page) {
	t.Helper()
	supervisor, f, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	worker, err = open(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { supervisor.Close(); worker.Close() })
	if runtime.GOOS != "linux" {
		return supervisor, worker // other systems do not seal the file
	}
	if err := f.Truncate(0); err == nil {
		t.Error("the worker can truncate the page while the supervisor uses it")
	}
	return supervisor, worker
}

// The supervisor sees what the worker notes: the threads that are in the library, and the calls and
// answers of each session.
func TestTheOtherSideSeesWhatIsNoted(t *testing.T) {
	t.Parallel()
	sup, work := pages(t, 2)
	work.Enter(3, "tls.Read", 0)
	work.Enter(255, "", 0)
	work.Enter(256, "tls.Read", 0) // there is no room for this thread: it is not noted
	first := sup.Inside()
	if len(first) != 2 || first[3].Method != "tls.Read" || first[255].Method != "" {
		t.Errorf("Inside returns %v; want the threads 3 and 255", first)
	}
	work.Leave(3)
	work.Leave(255)
	work.Leave(256)
	if in := sup.Inside(); len(in) != 0 {
		t.Errorf("Inside returns %v; want no thread", in)
	}
	work.Enter(3, "tls.Read", 0)
	if again := sup.Inside()[3]; again.Sequence == first[3].Sequence {
		t.Error("two stays of a thread in the library have the same Sequence")
	}

	for n := range 2 {
		ours, err := sup.Session(n)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := work.Session(n)
		if err != nil {
			t.Fatal(err)
		}
		theirs.Calling("tls.Write", int32(n+5))
		theirs.Writing()
		theirs.Writing()
		theirs.Written()
		if m, h := ours.InFlight(); m != "tls.Write" || h != int32(n+5) ||
			!ours.MidMessage() {
			t.Errorf("session %d: the supervisor sees %q on handle %d, mid-message "+
				"%t; want tls.Write on %d, true", n, m, h, ours.MidMessage(), n+5)
		}
		theirs.Written()
		theirs.Calling("", 0)
		if m, _ := ours.InFlight(); m != "" || ours.MidMessage() {
			t.Errorf("session %d: after the call and the messages, the supervisor "+
				"sees %q, mid-message %t; want no call, false", n, m,
				ours.MidMessage())
		}
		theirs.Writing()
		ours.Clear()
		if ours.MidMessage() {
			t.Errorf("session %d: after Clear, it is still mid-message", n)
		}
	}
	for _, n := range []int{-1, 2, 1 << 40} {
		if _, err := sup.Session(n); err == nil {
			t.Errorf("the page has 2 sessions, and Session(%d) returns no error", n)
		}
	}
}

// If a worker writes nonsense into its page, the supervisor reads no name of a method from it.
func TestNonsenseInThePageIsNothing(t *testing.T) {
	t.Parallel()
	sup, work := pages(t, 1)
	for i := range work.mem {
		work.mem[i] = 0xff
	}
	for _, in := range sup.Inside() {
		if in.Method != "" {
			t.Errorf("Inside returns a thread with %+v; want no method", in)
		}
	}
	s, err := sup.Session(0)
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := s.InFlight(); m != "" || !s.MidMessage() {
		t.Errorf("the call is %q, mid-message %t; want no call, but mid-message", m,
			s.MidMessage())
	}
}

func TestAFileThatIsNoPageIsRefused(t *testing.T) {
	t.Parallel()
	empty, err := memory(0)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if _, err := open(int(empty.Fd())); err == nil {
		t.Error("an empty file is taken for the page")
	}
	if _, err := open(-1); err == nil {
		t.Error("a descriptor that is not open is taken for the page")
	}
}
