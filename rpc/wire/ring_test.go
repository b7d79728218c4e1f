package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testring"
	"tlsd/rpc/wire"
)

const (
	smallest = 64 << 10 // ring
	patience = 60 * time.Second
)

// session is a session over rings: what tlsd has of it, and the caller's side.
type session struct {
	t      testing.TB
	r      *wire.Reader
	w      *wire.Writer
	rings  *wire.Rings
	server *net.UnixConn
	conn   *net.UnixConn // the caller's
	caller *testring.Memory
}

// newSession makes a session whose rings have size bytes and begin at a place, and moves it there.
func newSession(t testing.TB, size int, place uint32, timeout time.Duration) *session {
	t.Helper()
	s := &session{t: t}
	s.conn, s.server = pair(t)
	s.conn.SetDeadline(time.Now().Add(patience))
	s.server.SetDeadline(time.Now().Add(patience))
	s.caller = testring.New(t, s.conn, size)
	rings, err := wire.OpenRings(s.caller.FD)
	if err != nil {
		t.Fatal(err)
	}
	s.rings = rings
	rings.StartAt(place)
	s.caller.To.At, s.caller.From.At = place, place
	s.r = wire.NewReader(s.server, 8<<20)
	s.w = wire.NewWriter(s.server, timeout, nil)
	s.r.MoveTo(rings)
	if err := s.w.WriteAndMoveTo([]byte("moved"), rings, s.server); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("moved\n"))
	if _, err := io.ReadFull(s.conn, answer); err != nil || string(answer) != "moved\n" {
		t.Fatalf("%q, %v", answer, err)
	}
	t.Cleanup(func() { // as Serve does it
		rings.End()
		s.w.Close()
		rings.Close()
	})
	return s
}

// places are where rings begin: at 0, as they do, and where the counters' end is near.
var places = []uint32{0, ^uint32(0), ^uint32(0) - 100, ^uint32(0) - smallest, 1<<31 - 10}

// sizes of raw bytes.
var sizes = []int{0, 1, 100, 16<<10 - 1, 16 << 10, 50_000, smallest - 1, smallest, smallest + 1, 1<<20 + 3}

func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

// waysToRead n raw bytes.
var waysToRead = map[string]func(r *wire.Reader, n int) ([]byte, error){
	"Raw": func(r *wire.Reader, n int) ([]byte, error) { return r.Raw(n) },
	"Piece": func(r *wire.Reader, n int) (all []byte, err error) {
		for len(all) < n && err == nil {
			var p []byte
			p, err = r.Piece(n - len(all))
			all = append(all, p...)
		}
		return all, err
	},
	"Skip": func(r *wire.Reader, n int) ([]byte, error) { return nil, r.Skip(n) },
}

func TestMessagesFromTheCallerArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	for way, read := range waysToRead {
		for _, place := range places {
			t.Run(fmt.Sprintf("%s from %d", way, place), func(t *testing.T) {
				t.Parallel()
				s := newSession(t, smallest, place, 0)
				sent := make(chan error, 1)
				go func() {
					for i, n := range sizes {
						for _, p := range [][]byte{[]byte(lineOf(i, n) + "\n"), random(uint64(i), n)} {
							if _, err := s.caller.Write(p); err != nil {
								sent <- err
								return
							}
						}
					}
					sent <- s.conn.CloseWrite()
				}()
				for i, n := range sizes {
					got, err := s.r.Line()
					if err != nil || string(got) != lineOf(i, n) {
						t.Fatalf("line %d is %.100q, %v", i, got, err)
					}
					raw, err := read(s.r, n)
					if err != nil || way != "Skip" && !bytes.Equal(raw, random(uint64(i), n)) {
						t.Fatalf("the %d raw bytes behind line %d are others, or %v", n, i, err)
					}
				}
				if got, err := s.r.Line(); err != io.EOF {
					t.Errorf("at the end: %q, %v", got, err)
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// lineOf is one of a size that has to do with that of its raw bytes, and is longer than a ring for the largest.
func lineOf(i, n int) string { return fmt.Sprintf("%d %s %d", i, strings.Repeat("x", n/7), n) }

// TestTheCallerGetsWholeMessages though many write at the same time, in all ways.
func TestTheCallerGetsWholeMessages(t *testing.T) {
	t.Parallel()
	for _, place := range places {
		t.Run(fmt.Sprint(place), func(t *testing.T) {
			t.Parallel()
			s := newSession(t, smallest, place, patience)
			const writers = 4
			var all sync.WaitGroup
			for i := range writers {
				all.Go(func() {
					for k, n := range sizes {
						raw := bytes.Repeat([]byte{byte('a' + i)}, n)
						var err error
						switch msg := fmt.Appendf(nil, "%d %d", i, n); k % 3 {
						case 0:
							err = s.w.Write(msg, raw)
						case 1:
							err = s.w.Later(msg, raw)
						case 2:
							err = errors.Join(s.w.Acknowledge(fmt.Appendf(nil, "%d 0", i)), s.w.Write(msg, raw))
						}
						if err != nil {
							t.Error(err)
						}
					}
					if err := s.w.Flush(); err != nil {
						t.Error(err)
					}
				})
			}
			go func() { all.Wait(); s.server.CloseWrite() }()
			r := wire.NewReader(s.caller, 100)
			messages := 0
			for {
				got, err := r.Line()
				if err == io.EOF {
					break
				}
				var i, n int
				if _, serr := fmt.Sscanf(string(got), "%d %d", &i, &n); serr != nil || err != nil {
					t.Fatalf("message %d is %.100q: %v", messages, got, err)
				}
				raw, err := r.Raw(n)
				if err != nil || len(bytes.Trim(raw, string(rune('a'+i)))) != 0 {
					t.Fatalf("message %d: the raw bytes are another's: %v", messages, err)
				}
				messages++
			}
			if want := writers * (len(sizes) + len(sizes)/3); messages != want {
				t.Errorf("%d messages have arrived, want %d", messages, want)
			}
		})
	}
}

// until waits for a condition that nothing announces.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// waiting makes a Write wait for room, and gives what becomes of it.
func (s *session) waiting() <-chan error {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.w.Write([]byte("m"), make([]byte, smallest)) }()
	until(s.t, "a Write that waits for room", func() bool { return s.caller.From.Wants.Load() == 1 })
	return done
}

func (s *session) result(done <-chan error) error {
	s.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		s.t.Fatal("the Write still waits")
		return nil
	}
}

func TestAWriteWaitsForRoom(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, patience)
	done := s.waiting()
	got := make([]byte, 2+smallest)
	if _, err := io.ReadFull(s.caller, got); err != nil || string(got[:2]) != "m\n" {
		t.Errorf("%q, %v", got[:2], err)
	}
	if err := s.result(done); err != nil {
		t.Error(err)
	}
}

// TestTheEndOfTheSessionEndsWaits for room, at once and for good; and what comes later does not touch the memory.
func TestTheEndOfTheSessionEndsWaits(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, 0)
	done := s.waiting()
	s.rings.End()
	err := s.result(done)
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("the Write gives %v", err)
	}
	s.w.Close()
	s.rings.Close()
	s.rings.End()
	for range 2 {
		for name, f := range map[string]func() error{
			"Write":       func() error { return s.w.Write([]byte("m"), nil) },
			"Later":       func() error { return s.w.Later([]byte("m"), nil) },
			"Acknowledge": func() error { return s.w.Acknowledge([]byte("m")) },
			"Flush":       func() error { return s.w.Flush() },
		} {
			if later := f(); later != err {
				t.Errorf("%s gives %v later, want the same error", name, later)
			}
		}
	}
}

// TestAClosedWriterLeavesTheMemoryAlone though it has still to wake the caller.
func TestAClosedWriterLeavesTheMemoryAlone(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, 0)
	if err := s.w.Later([]byte("m"), nil); err != nil {
		t.Fatal(err)
	}
	s.w.Close()
	s.rings.Close()
	if err := s.w.Flush(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Flush gives %v", err)
	}
	if err := s.w.Write([]byte("m"), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write gives %v", err)
	}
}

func TestAnAnswerThatIsNotTakenMeetsTheTimeout(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, 10*time.Millisecond)
	if err := s.w.Write([]byte("m"), make([]byte, smallest)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestACallerThatIsGoneIsNotWaitedFor: nobody will make room. A caller that only sends no more is not gone.
func TestACallerThatIsGoneIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, 0)
	done := s.waiting()
	s.conn.CloseWrite()
	until(t, "one more look", func() bool { return s.caller.From.Wants.Swap(0) == 0 }) // each look says again that it waits
	until(t, "one more look", func() bool { return s.caller.From.Wants.Load() == 1 })
	select {
	case err := <-done:
		t.Fatalf("with a caller that sends no more the Write gives %v", err)
	default:
	}
	s.conn.Close()
	if err := s.result(done); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the Write gives %v", err)
	}
}

// TestImpossibleCountersEndTheSession with an error.
func TestImpossibleCountersEndTheSession(t *testing.T) {
	t.Parallel()
	for _, head := range []uint32{smallest + 3, 1 << 31, ^uint32(0), ^uint32(0) - smallest} { // 2 are taken before
		for way, read := range waysToRead {
			s := newSession(t, smallest, 0, 0)
			s.caller.To.Head.Store(head)
			s.caller.Ring()
			if got, err := s.r.Line(); err == nil || err == io.EOF {
				t.Errorf("head %d: Line gives %.100q, %v", head, got, err)
			}

			s = newSession(t, smallest, 0, 0)
			s.caller.Write([]byte("m\n"))
			if _, err := s.r.Line(); err != nil {
				t.Fatal(err)
			}
			s.caller.To.Head.Store(head)
			if got, err := read(s.r, 10); err == nil {
				t.Errorf("head %d: %s gives %.100q", head, way, got)
			}
		}
	}
	for _, tail := range []uint32{1, smallest, 1 << 31, ^uint32(0) - smallest} {
		s := newSession(t, smallest, 0, 0)
		s.caller.From.Tail.Store(tail)
		first := s.w.Write([]byte("m"), nil)
		if first == nil {
			t.Errorf("tail %d: Write says that all is well", tail)
		}
		s.caller.From.Tail.Store(0)
		if err := s.w.Write([]byte("m"), nil); err != first {
			t.Errorf("tail %d, and then right again: Write gives %v", tail, err)
		}
	}
}

// rung is how many bells have come since the last time.
func (s *session) rung() int {
	s.t.Helper()
	rc, err := s.conn.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	bells := 0
	rc.Control(func(fd uintptr) {
		var buf [64]byte
		for {
			n, err := unix.Read(int(fd), buf[:])
			if n <= 0 {
				if err != unix.EAGAIN {
					s.t.Errorf("the socket gives %d, %v", n, err)
				}
				return
			}
			bells += n
			if strings.Trim(string(buf[:n]), "\n") != "" {
				s.t.Errorf("on the socket there is %q", buf[:n])
			}
		}
	})
	return bells
}

// TestBellsAreForWhoSleeps, and for what they want to be woken, once.
func TestBellsAreForWhoSleeps(t *testing.T) {
	t.Parallel()
	const (
		awake   = testring.Awake
		all     = testring.SleepsForAll
		answers = testring.SleepsForAnswers
	)
	write := func(s *session) error { return s.w.Write([]byte("m"), nil) }
	later := func(s *session) error { return s.w.Later([]byte("m"), nil) }
	acknowledge := func(s *session) error { return s.w.Acknowledge([]byte("m")) }
	flush := func(s *session) error { return s.w.Flush() }
	sleep := func(s *session) error { s.caller.From.Sleeps.Store(answers); return nil }
	type do []func(*session) error
	for _, c := range []struct {
		name   string
		sleeps uint32
		do     do
		bells  int
		after  uint32
	}{
		{"nothing is to be told", all, do{flush}, 0, all},
		{"awake, Write", awake, do{write}, 0, awake},
		{"for all, Write", all, do{write}, 1, awake},
		{"for all, two Writes", all, do{write, write}, 1, awake},
		{"for answers, Write", answers, do{write}, 1, awake},
		{"awake, Later", awake, do{later, flush}, 0, awake},
		{"for all, Later", all, do{later}, 0, all},
		{"for all, Later and Flush", all, do{later, later, flush}, 1, awake},
		{"for answers, Later and Flush", answers, do{later, flush}, 1, awake},
		{"for all, Acknowledge", all, do{acknowledge}, 0, all},
		{"for all, Acknowledge and Flush", all, do{acknowledge, flush}, 1, awake},
		{"for answers, Acknowledge and Flush", answers, do{acknowledge, acknowledge, flush}, 0, answers},
		{"for answers, both and Flush", answers, do{later, acknowledge, flush}, 1, awake},
		{"for answers, both the other way round", answers, do{acknowledge, later, flush}, 1, awake},
		{"for answers, Acknowledge and Write", answers, do{acknowledge, write}, 1, awake},
		{"what was flushed is not due", answers, do{later, flush, sleep, acknowledge, flush}, 1, answers},
		{"what cannot be", 77, do{write, later, acknowledge, flush}, 0, 77},
	} {
		s := newSession(t, smallest, 0, 0)
		s.caller.From.Sleeps.Store(c.sleeps)
		for _, f := range c.do {
			if err := f(s); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if n := s.rung(); n != c.bells {
			t.Errorf("%s: %d bells, want %d", c.name, n, c.bells)
		}
		if after := s.caller.From.Sleeps.Load(); after != c.after {
			t.Errorf("%s: the caller's word is %d, want %d", c.name, after, c.after)
		}
	}
}

// TestWhoSleepsForAnswersIsWokenWhenThereIsNoRoom, because then somebody waits for it.
func TestWhoSleepsForAnswersIsWokenWhenThereIsNoRoom(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, patience)
	s.caller.Sleep = testring.SleepsForAnswers
	s.caller.From.Sleeps.Store(testring.SleepsForAnswers)
	done := make(chan error, 1)
	go func() {
		for range smallest / 1000 * 2 {
			if err := s.w.Acknowledge(make([]byte, 999)); err != nil {
				done <- err
				return
			}
		}
		done <- s.w.Write([]byte("end"), nil)
	}()
	if _, err := io.CopyN(io.Discard, s.caller, smallest/1000*2*1000+4); err != nil {
		t.Error(err)
	}
	if err := s.result(done); err != nil {
		t.Error(err)
	}
}

// TestACallerThatHearsNoBellsIsNoHindrance: they do not wait for room on the socket.
func TestACallerThatHearsNoBellsIsNoHindrance(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, patience)
	got := make([]byte, 2)
	for i := range 5000 {
		s.caller.From.Sleeps.Store(testring.SleepsForAll)
		if err := s.w.Write([]byte("m"), nil); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if n := s.caller.Take(got); n != 2 || string(got) != "m\n" {
			t.Fatalf("message %d is %q", i, got[:n])
		}
	}
	if n := s.rung(); n == 0 || n == 5000 {
		t.Errorf("%d bells, which did not fill the socket", n) // else this shows nothing
	}
}

// TestTheReaderMovesAtTheBlankLine and not before: lines on the socket are still read, whatever is in the ring.
func TestTheReaderMovesAtTheBlankLine(t *testing.T) {
	t.Parallel()
	for _, blank := range []string{"\n", "\r\n", " \n", "\n\n\n\n"} {
		s := newSession(t, smallest, 0, 0)
		s.caller.Put([]byte("three\nfour\n"))
		io.WriteString(s.conn, "one\ntwo\nraw")
		for _, want := range []string{"one", "two"} {
			if got, err := s.r.Line(); string(got) != want || err != nil {
				t.Fatalf("blank %q: %q, %v; want %s", blank, got, err, want)
			}
		}
		if raw, err := s.r.Raw(3); string(raw) != "raw" || err != nil {
			t.Fatalf("blank %q: %q, %v", blank, raw, err)
		}
		io.WriteString(s.conn, blank)
		for _, want := range []string{"three", "four"} {
			if got, err := s.r.Line(); string(got) != want || err != nil {
				t.Fatalf("blank %q: %q, %v; want %s", blank, got, err, want)
			}
		}
	}
}

func TestOnlyBellsMayComeBesideTheRings(t *testing.T) {
	t.Parallel()
	for name, junk := range map[string]string{"a line": "x\n", "a byte": "x", "behind bells": "\n\nx", "CR": "\r\n", "NUL": "\x00"} {
		s := newSession(t, smallest, 0, 0)
		io.WriteString(s.conn, "\n"+junk)
		if got, err := s.r.Line(); err == nil || err == io.EOF {
			t.Errorf("%s, with the blank line: %q, %v", name, got, err)
		}

		s = newSession(t, smallest, 0, 0)
		s.caller.Write([]byte("m\n"))
		if _, err := s.r.Line(); err != nil {
			t.Fatal(err)
		}
		io.WriteString(s.conn, junk)
		if got, err := s.r.Line(); err == nil || err == io.EOF {
			t.Errorf("%s, later: %q, %v", name, got, err)
		}
	}
}

// TestNothingIsLostAtTheEndOfTheSocket: what is in the ring by then is read first.
func TestNothingIsLostAtTheEndOfTheSocket(t *testing.T) {
	t.Parallel()
	s := newSession(t, smallest, 0, 0)
	io.WriteString(s.conn, "\n")
	s.caller.Put([]byte("one\ntwo\nthree"))
	s.conn.CloseWrite()
	got, err := lines(s.r)
	if fmt.Sprint(got) != "[one two three]" || err != io.EOF {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOpenRingsRefuses(t *testing.T) {
	t.Parallel()
	const good = testring.Header + 2*smallest
	for name, c := range map[string]struct {
		size  int64
		seals int
	}{
		"no-seal":         {good, 0},
		"another-seal":    {good, unix.F_SEAL_GROW},
		"not-to-write-to": {good, unix.F_SEAL_SHRINK | unix.F_SEAL_FUTURE_WRITE},
		"empty":           {0, unix.F_SEAL_SHRINK},
		"only-a-header":   {testring.Header, unix.F_SEAL_SHRINK},
		"too-small":       {testring.Header + smallest, unix.F_SEAL_SHRINK},
		"no-power-of-two": {testring.Header + 2*3*smallest, unix.F_SEAL_SHRINK},
		"a-byte-less":     {good - 1, unix.F_SEAL_SHRINK},
		"a-byte-more":     {good + 1, unix.F_SEAL_SHRINK},
		"too-large":       {testring.Header + 4<<20, unix.F_SEAL_SHRINK},
		"huge":            {1<<63 - 1, unix.F_SEAL_SHRINK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fd := testring.File(t, "refused-"+name, c.size, c.seals)
			if rings, err := wire.OpenRings(fd); err == nil {
				rings.Close()
				t.Error("it is taken")
			}
			if maps, fds := testring.Kept(t, "refused-"+name); maps != 0 || fds != 1 {
				t.Errorf("%d mappings and %d descriptors are left, want none but ours", maps, fds)
			}
		})
	}
	t.Run("no memfd", func(t *testing.T) {
		t.Parallel()
		file, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		file.Truncate(good)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		for _, fd := range []int{int(file.Fd()), int(r.Fd()), -1} {
			if _, err := wire.OpenRings(fd); err == nil {
				t.Errorf("descriptor %d is taken", fd)
			}
		}
	})
}

// TestARefusalLeavesNoAddressesTaken, though some had been when it failed.
func TestARefusalLeavesNoAddressesTaken(t *testing.T) {
	t.Parallel()
	const (
		size  = testring.Header + 2<<20
		times = 500
	)
	fd := testring.File(t, "refused-late", size, unix.F_SEAL_SHRINK|unix.F_SEAL_FUTURE_WRITE)
	before := addresses(t)
	for range times {
		if _, err := wire.OpenRings(fd); err == nil {
			t.Fatal("it is taken")
		}
	}
	// Other tests take some meanwhile.
	if taken := addresses(t) - before; taken > times*size/2 {
		t.Errorf("%d bytes of addresses are taken after %d times", taken, times)
	}
}

// addresses is how many bytes of addresses this process has taken.
func addresses(t testing.TB) int {
	t.Helper()
	var pages int
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(statm), &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestCloseLeavesNothingMapped(t *testing.T) {
	t.Parallel()
	for i, size := range []int{smallest, 1 << 20} {
		name := fmt.Sprint("closed-", i)
		fd := testring.File(t, name, int64(testring.Header+2*size), unix.F_SEAL_SHRINK)
		rings, err := wire.OpenRings(fd)
		if err != nil {
			t.Fatal(err)
		}
		before, fds := testring.Kept(t, name)
		rings.Close()
		rings.Close()
		rings.End()
		after, _ := testring.Kept(t, name)
		if before == 0 || after != 0 {
			t.Errorf("%d mappings while it was open, %d behind", before, after)
		}
		if fds != 1 {
			t.Errorf("%d descriptors are open, want that of the test", fds)
		}
	}
}
