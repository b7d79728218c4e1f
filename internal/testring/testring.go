// Package testring is a caller's side of the shared memory of proto.md, for tests. It is written from the layout, as plainly as
// can be, and has nothing of package wire: no memory that is mapped twice, no message, no wait with a tick.
package testring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Header is the size of the part before the two rings, in bytes.
const Header = 64 << 10

// Values of Sleeps.
const (
	Awake = iota
	SleepsForAll
	SleepsForAnswers
)

// patience bounds a wait for room. It is no tick: who is not woken fails.
const patience = 60 * time.Second

// Half is one ring.
type Half struct {
	Head, Wants, Tail, Sleeps *atomic.Uint32
	Data                      []byte
	At                        uint32 // Head or Tail, whichever is the caller's
}

// Memory is the shared memory, and the caller's place in it.
type Memory struct {
	Name    string // of the memfd, which is its only one
	FD      int    // the memfd
	All     []byte
	To      Half         // tlsd
	From    Half         // tlsd
	Conn    net.Conn     // for bells
	Bells   atomic.Int64 // that have been heard
	Sleep   uint32       // how Read sleeps; SleepsForAll at first
	Stopped atomic.Bool  // Write waits for room no more
	moved   bool
}

var made atomic.Int64 // memories

// Kept is how many mappings and descriptors this process has of the memfd of that name.
func Kept(tb testing.TB, name string) (mappings, descriptors int) {
	tb.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		tb.Fatal(err)
	}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		tb.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "/memfd:"+name+" ") {
			descriptors++
		}
	}
	return strings.Count(string(maps), "/memfd:"+name+" "), descriptors
}

// File is a memfd of that name, size and seals. The test's end closes it.
func File(tb testing.TB, name string, size int64, seals int) int {
	tb.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		tb.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		tb.Fatal(err)
	}
	return fd
}

// New makes memory with two rings of so many bytes. conn is the caller's end of the socket. The memory stays until
// the test's end.
func New(tb testing.TB, conn net.Conn, size int) *Memory {
	tb.Helper()
	m := &Memory{Name: fmt.Sprintf("test-session-%d", made.Add(1)), Conn: conn, Sleep: SleepsForAll}
	all := Header + 2*size
	m.FD = File(tb, m.Name, int64(all), unix.F_SEAL_SHRINK)
	mem, err := unix.Mmap(m.FD, 0, all, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Munmap(mem) })
	m.All = mem
	m.To = half(mem, mem[Header:][:size])
	m.From = half(mem[128:], mem[Header+size:])
	return m
}

func half(words, data []byte) Half {
	word := func(at int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&words[at])) }
	return Half{Head: word(0), Wants: word(4), Tail: word(64), Sleeps: word(68), Data: data}
}

// Put puts in as much as there is room for, and does not ring.
func (m *Memory) Put(p []byte) (n int) {
	h := &m.To
	for n < len(p) {
		used := h.At - h.Tail.Load() // read once: a test may scribble over it meanwhile
		if used >= uint32(len(h.Data)) {
			break
		}
		free := len(h.Data) - int(used)
		place := int(h.At) % len(h.Data)
		some := copy(h.Data[place:min(place+free, len(h.Data))], p[n:])
		n += some
		h.At += uint32(some)
	}
	h.Head.Store(h.At)
	return n
}

// Ring wakes tlsd if it sleeps, and the first time has it move to the rings.
func (m *Memory) Ring() error {
	if m.To.Sleeps.Swap(Awake) == Awake && m.moved {
		return nil
	}
	m.moved = true
	_, err := m.Conn.Write([]byte("\n"))
	return err
}

// Write puts all of p in, waits for room where it has to, and wakes tlsd.
func (m *Memory) Write(p []byte) (n int, err error) {
	for {
		n += m.Put(p[n:])
		if err := m.Ring(); err != nil || n == len(p) {
			return n, err
		}
		h := &m.To
		h.Wants.Store(1)
		if h.At-h.Tail.Load() < uint32(len(h.Data)) {
			h.Wants.Store(0)
			continue
		}
		if m.Stopped.Load() {
			return n, errors.New("stopped")
		}
		if !wait(h.Wants) {
			return n, errors.New("nobody has told of room")
		}
	}
}

// Take takes out as much as there is.
func (m *Memory) Take(p []byte) (n int) {
	h := &m.From
	for n < len(p) && h.At != h.Head.Load() {
		have := int(h.Head.Load() - h.At)
		place := int(h.At) % len(h.Data)
		some := copy(p[n:], h.Data[place:min(place+have, len(h.Data))])
		n += some
		h.At += uint32(some)
	}
	h.Tail.Store(h.At)
	if h.Wants.Swap(0) != 0 {
		wake(h.Wants)
	}
	return n
}

// Read takes out what there is, and waits for it. The end of the socket is the end. What else comes over it but bells is an error.
func (m *Memory) Read(p []byte) (int, error) {
	var end error
	for {
		if n := m.Take(p); n > 0 {
			m.From.Sleeps.Store(Awake)
			return n, nil
		}
		if end != nil {
			return 0, end
		}
		m.From.Sleeps.Store(m.Sleep)
		if m.From.At != m.From.Head.Load() {
			continue
		}
		var buf [64]byte
		n, err := m.Conn.Read(buf[:])
		m.Bells.Add(int64(n))
		if other := bytes.Trim(buf[:n], "\n"); len(other) > 0 {
			return 0, errors.New("on the socket there is " + string(other))
		}
		end = err
	}
}

// Stop ends a Write that waits for room.
func (m *Memory) Stop() {
	m.Stopped.Store(true)
	m.To.Wants.Store(0)
	wake(m.To.Wants)
}

var _ io.ReadWriter = (*Memory)(nil)

// wait waits until the word is not 1; false if that takes too long.
func wait(word *atomic.Uint32) bool {
	ts := unix.NsecToTimespec(int64(patience))
	_, _, err := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 0, 1, uintptr(unsafe.Pointer(&ts)), 0, 0)
	return err != unix.ETIMEDOUT
}

func wake(word *atomic.Uint32) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 1, 1, 0, 0, 0)
}
