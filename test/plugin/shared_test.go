package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// overSharedMemory is set in a process of this test in which stand-ins agree to shared memory.
var overSharedMemory = os.Getenv("TLSD_TEST_SHARED_MEMORY") == "1"

// TestTheSameHoldsOverSharedMemory runs the tests with a stand-in again, which then talks to the plugin through
// the shared memory that it offers.
func TestTheSameHoldsOverSharedMemory(t *testing.T) {
	t.Parallel()
	if overSharedMemory {
		t.Skip("this is that process")
	}
	const same = "^Test(Answers|ATLSDThat|AnAnswer|Results|Errors|TheNextCall|AWrite|Writes|WhatIs|WhatRuns|Strict|Reads|AShort|Close|CancelConcerns|Blobs|Much|SharedMemory|LastWords)"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+same, "-test.count=1", "-test.parallel=4", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "TLSD_TEST_SHARED_MEMORY=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, some := range []string{"TestAnswersMayComeInAnyOrder", "TestATLSDThatBreaksTheProtocolIsLeft", "TestTheNextCallRaisesTheErrorOfAWriteOnce"} {
		if !bytes.Contains(out, []byte("--- PASS: "+some)) {
			t.Errorf("%s was not run again", some)
		}
	}
	if !bytes.Contains(out, []byte(sharedNote)) {
		t.Errorf("no stand-in has used shared memory:\n%s", out)
	}
}

// sharedNote is what a test says that uses shared memory.
const sharedNote = "messages go through shared memory"

// sharedMemory is tlsd's side of the plugin's shared memory, written from proto.md alone: slow and plain.
type sharedMemory struct {
	conn          *net.UnixConn
	mem           []byte
	size          uint32 // of a ring
	taken, putted uint32
}

const sharedHeader = 64 << 10

// The words of the header.
const (
	toTLSDHead, toTLSDWants, toTLSDTail, toTLSDSleeps = 0, 4, 64, 68
	fromHead, fromWants, fromTail, fromSleeps         = 128, 132, 192, 196
)

func openShared(conn *net.UnixConn, fd int) (*sharedMemory, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &sharedMemory{conn: conn, mem: mem, size: uint32(st.Size-sharedHeader) / 2}, nil
}

func (m *sharedMemory) word(at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&m.mem[at]))
}

// Read takes from the ring to tlsd, and waits for a bell if there is nothing.
func (m *sharedMemory) Read(p []byte) (n int, err error) {
	ring := m.mem[sharedHeader:][:m.size]
	for {
		for m.taken != m.word(toTLSDHead).Load() && n < len(p) {
			p[n] = ring[m.taken%m.size]
			m.taken++
			n++
		}
		m.word(toTLSDTail).Store(m.taken)
		if m.word(toTLSDWants).Swap(0) != 0 {
			unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(m.word(toTLSDWants))), 1, 1, 0, 0, 0)
		}
		if n > 0 {
			return n, nil
		}
		m.word(toTLSDSleeps).Store(1)
		if m.taken != m.word(toTLSDHead).Load() {
			continue
		}
		var bell [1]byte
		if _, err := m.conn.Read(bell[:]); err != nil {
			return 0, err
		}
		if bell[0] != '\n' {
			return 0, fmt.Errorf("the plugin sends %q beside the rings", bell)
		}
	}
}

// Write puts into the ring to the plugin, and rings the bell.
func (m *sharedMemory) Write(p []byte) (int, error) {
	ring := m.mem[sharedHeader+int(m.size):][:m.size]
	end := time.Now().Add(patience)
	for n := range p {
		for m.putted-m.word(fromTail).Load() == m.size {
			m.publish()
			if time.Sleep(time.Millisecond); time.Now().After(end) { // the plugin takes it when it likes
				return n, errors.New("the plugin takes no answers")
			}
		}
		ring[m.putted%m.size] = p[n]
		m.putted++
	}
	return len(p), m.publish()
}

func (m *sharedMemory) publish() error {
	m.word(fromHead).Store(m.putted)
	if m.word(fromSleeps).Swap(0) == 0 {
		return nil
	}
	_, err := m.conn.Write([]byte("\n"))
	return err
}

// firstFD reads from a connection and keeps the descriptor that comes with the first bytes.
type firstFD struct {
	*net.UnixConn
	fd int // or -1
}

func (r *firstFD) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := r.ReadMsgUnix(p, oob)
	if messages, _ := unix.ParseSocketControlMessage(oob[:oobn]); len(messages) == 1 {
		if fds, _ := unix.ParseUnixRights(&messages[0]); len(fds) == 1 {
			r.fd = fds[0]
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return max(n, 0), err
}

// share agrees to the shared memory of the Hello just read.
func (p *peer) share() {
	p.t.Helper()
	shared, err := openShared(p.conn, p.first.fd)
	if err != nil {
		p.t.Fatal(err)
	}
	unix.Close(p.first.fd)
	p.t.Cleanup(func() { unix.Munmap(shared.mem) })
	p.t.Log(sharedNote)
	p.shared, p.out = shared, shared
}

func needsShared(t *testing.T) {
	if !overSharedMemory {
		t.Skip("it is run by TestTheSameHoldsOverSharedMemory")
	}
}

// TestSharedMemoryIsNotBelieved: whatever tlsd writes into it, the session is lost, and nothing else.
func TestSharedMemoryIsNotBelieved(t *testing.T) {
	needsShared(t)
	t.Parallel()
	const broken = "tlsd has broken the rules of the shared memory"
	for name, c := range map[string]struct {
		spoil func(m *sharedMemory)
		why   string
	}{
		"more than the ring holds":   {func(m *sharedMemory) { m.word(fromHead).Store(m.putted + m.size + 1) }, broken},
		"less than nothing":          {func(m *sharedMemory) { m.word(fromHead).Store(m.putted - 1) }, broken},
		"a ring full of nothing":     {func(m *sharedMemory) { m.word(fromHead).Store(m.putted + m.size); m.conn.CloseWrite() }, "no answer of JSON-RPC 2.0"},
		"more taken than was put in": {func(m *sharedMemory) { m.word(toTLSDTail).Store(m.taken + 1); m.conn.CloseWrite() }, "closed the session"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p := opened(t)
			read := h.start("Read", 1, 100)
			p.expect("tls.Read", "[1,100]")
			c.spoil(p.shared)
			p.conn.Write([]byte("\n"))
			read.fails("tls.Read: handle 1: lost: ", c.why)
			h.send("Handshake", 1).fails("tls.Handshake: handle 1: lost: ", c.why)
		})
	}
	t.Run("no room for a request", func(t *testing.T) {
		t.Parallel()
		_, h, p := opened(t)
		p.shared.word(toTLSDTail).Store(p.shared.taken + 5) // more than there was
		h.send("Handshake", 1).fails("tls.Handshake: handle 1: lost: ")
	})
}

// TestLastWordsComeBesideTheRings, from somebody who has no part in them, after all that is in them.
func TestLastWordsComeBesideTheRings(t *testing.T) {
	needsShared(t)
	t.Parallel()
	for name, words := range map[string]struct{ text, why string }{
		"said":       {`{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"lost: the worker was killed","data":{"kind":"lost"}}}` + "\n", "lost: the worker was killed"},
		"cut short":  {`{"jsonrpc":"2.0","id":null,"error":{"code":-320`, "lost: tlsd has closed the session"},
		"nonsense":   {"nonsense\n", "lost: tlsd has closed the session"},
		"too long":   {strings.Repeat("x", 100_000) + "\n", "lost: tlsd has closed the session"},
		"only bells": {strings.Repeat("\n", 1000), "lost: tlsd has closed the session"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p := opened(t)
			first, second := h.start("Read", 1, 100), h.start("Handshake", 1)
			ids := map[string]int64{}
			for range 2 {
				r := p.request()
				ids[r.Method] = *r.ID
			}
			p.blob(ids["tls.Read"], "before the end")
			io.WriteString(p.conn, words.text)
			p.conn.CloseWrite()
			first.reads("before the end")
			second.fails("tls.Handshake: handle 1: " + words.why)
		})
	}
}
