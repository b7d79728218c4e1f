package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Shared memory between a caller and tlsd, in which messages lie instead of going over the socket. proto.md,
// section "Shared memory", describes it for those who write a client; the rules on this side:
//
//   - The other side is not trusted. It can write anywhere at any time: what counts is read once and
//     checked, a line is copied before it is looked at, and what this side's position is, it remembers itself.
//     Raw bytes may change until they have been encrypted, which harms nobody but who changes them.
//   - The memory is sealed, so that nobody can shrink it, and an access cannot end in SIGBUS.
//   - Each part with data is mapped twice, one behind the other, so that what goes over its end is in one piece.
//   - Who waits for data says so in the memory and waits on the socket, for a bell: an empty line. Who waits for room
//     does it with futex(2), for it may be that somebody else waits on the socket.

// The parts of the file: a header, the data to tlsd, the data to the caller. All begin at a multiple of any
// page size that Linux has.
const (
	headerBytes = 64 << 10
	leastRing   = 64 << 10 // bytes of one part with data, a power of two
	mostRing    = 1 << 20
)

// The places of a ring's words in the header. The second ring's are afterRing further on.
const (
	atHead    = 0  // how many bytes have been put in, modulo 2^32
	atWants   = 4  // 1: who puts in waits for room
	atTail    = 64 // how many have been taken out, modulo 2^32
	atSleeps  = 68 // whether who takes out waits for more
	afterRing = 128
)

// Values of the word at atSleeps.
const (
	awake            = 0
	sleepsForAll     = 1
	sleepsForAnswers = 2 // to all but Writes
)

var (
	errRules  = errors.New("the caller has broken the rules of the shared memory")
	errClosed = fmt.Errorf("the shared memory is closed: %w", os.ErrClosed)
)

// Rings is the shared memory of a session.
type Rings struct {
	in  taker
	out putter

	mu  sync.Mutex // guards mem
	mem []byte     // nil: no longer mapped
}

// OpenRings maps a caller's shared memory. It keeps no descriptor.
func OpenRings(fd int) (*Rings, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, errors.New("the shared memory is not a memfd with F_SEAL_SHRINK")
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return nil, errors.New("the shared memory is not of common pages") // of huge ones there may be none left
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	size := (st.Size - headerBytes) / 2
	if size < leastRing || size > mostRing || bits.OnesCount64(uint64(size)) != 1 || st.Size != headerBytes+2*size {
		return nil, fmt.Errorf("the shared memory has %d bytes, which is not a header of %d and two rings of equal size, a power of two from %d to %d",
			st.Size, headerBytes, leastRing, mostRing)
	}
	mem, err := mapTwice(fd, uintptr(size))
	if err != nil {
		return nil, err
	}
	return &Rings{
		mem: mem,
		in:  taker{ring: newRing(mem, 0, mem[headerBytes:][:2*size])},
		out: putter{ring: newRing(mem, afterRing, mem[headerBytes+2*size:])},
	}, nil
}

// mapTwice maps the header once and both rings twice.
func mapTwice(fd int, size uintptr) ([]byte, error) {
	all := headerBytes + 4*size
	base, err := unix.MmapPtr(-1, 0, nil, all, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	at := unsafe.Pointer(base)
	for _, part := range []struct{ offset, size uintptr }{{0, headerBytes}, {headerBytes, size}, {headerBytes, size},
		{headerBytes + size, size}, {headerBytes + size, size}} {
		_, err := unix.MmapPtr(fd, int64(part.offset), at, part.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
		if err != nil {
			unix.MunmapPtr(base, all)
			return nil, os.NewSyscallError("mmap", err)
		}
		at = unsafe.Add(at, part.size)
	}
	return unsafe.Slice((*byte)(base), all), nil
}

// End makes all that is put in, or waits for room, fail from now on.
func (r *Rings) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem != nil {
		r.out.close()
	}
}

// Close unmaps the memory. The Reader that uses it must not be used any more, and the Writer is closed.
func (r *Rings) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(r.mem)), uintptr(len(r.mem)))
	r.mem = nil
}

// ring is what both of its sides have in common.
type ring struct {
	head, wants, tail, sleeps *atomic.Uint32
	data                      []byte // twice the ring
	size                      uint32
	at                        uint32 // head or tail, whichever is ours
}

func newRing(mem []byte, first int, data []byte) ring {
	word := func(at int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[first+at])) }
	return ring{head: word(atHead), wants: word(atWants), tail: word(atTail), sleeps: word(atSleeps),
		data: data, size: uint32(len(data) / 2)}
}

// from is the ring's memory from our place on, n bytes.
func (r *ring) from(n uint32) []byte {
	place := r.at & (r.size - 1)
	return r.data[place : place+n]
}

// taker is the side that takes out.
type taker struct {
	ring
	seen   uint32 // head as it was looked at last
	broken bool   // the other side has said what cannot be
}

// ahead is what can be taken out. It never becomes less but by take.
func (t *taker) ahead() []byte {
	n, had := t.head.Load()-t.at, t.seen-t.at
	if n > t.size || n < had {
		t.broken, n = true, had
	}
	t.seen = t.at + n
	return t.from(n)
}

func (t *taker) take(n int) {
	t.at += uint32(n)
	t.tail.Store(t.at)
	if t.wants.Load() != 0 && t.head.Load()-t.at <= t.size/2 {
		t.tellOfRoom()
	}
}

// tellOfRoom wakes who waits for room.
func (t *taker) tellOfRoom() {
	if t.wants.Swap(0) != 0 {
		futexWake(t.wants)
	}
}

// ringSource is a Reader's source.
type ringSource struct {
	in    *taker
	bells io.Reader // the socket
	ended error     // what it has ended with
}

func (s *ringSource) ahead() []byte { return s.in.ahead() }
func (s *ringSource) take(n int)    { s.in.take(n) }

func (s *ringSource) more() error {
	have := int(s.in.seen - s.in.at) // not what there is by now: who asks for more has not seen that
	if have == int(s.in.size) {
		return bufio.ErrBufferFull
	}
	var buf [64]byte
	for {
		s.in.sleeps.Store(sleepsForAll)
		more := len(s.in.ahead()) > have
		switch {
		case s.in.broken:
			return errRules
		case more:
			s.in.sleeps.Store(awake)
			return nil
		case s.ended != nil:
			return s.ended
		}
		s.in.tellOfRoom() // or both would sleep
		n, err := s.bells.Read(buf[:])
		if wrong := onlyBells(buf[:n]); wrong != nil {
			return wrong
		}
		s.ended = err
	}
}

func (s *ringSource) full(p []byte) error {
	for len(p) > 0 {
		n := copy(p, s.ahead())
		s.take(n)
		if p = p[n:]; n == 0 {
			if err := s.more(); err != nil {
				return err
			}
		}
	}
	return nil
}

// onlyBells says what is wrong with bytes that came over the socket beside the rings.
func onlyBells(p []byte) error {
	if len(bytes.Trim(p, "\n")) > 0 {
		return fmt.Errorf("%w: there is more than empty lines on the socket", errRules)
	}
	return nil
}

// putter is the side that puts in.
type putter struct {
	ring
	closed atomic.Bool
}

// put puts in as much of p as there is room for. Who takes out sees it after publish.
func (r *putter) put(p []byte) (n int, err error) {
	free := r.size - (r.at - r.tail.Load())
	switch {
	case r.closed.Load():
		return 0, errClosed
	case free > r.size:
		return 0, errRules
	}
	n = copy(r.from(free), p)
	r.at += uint32(n)
	return n, nil
}

func (r *putter) publish() { r.head.Store(r.at) }

// roomTick is after how long who waits for room looks around.
const roomTick = 100 * time.Millisecond

// waitForRoom waits until the ring is not full, for a tick at most, and not after close.
func (r *putter) waitForRoom() {
	r.wants.Store(1)
	if !r.closed.Load() && r.at-r.tail.Load() == r.size {
		futexWait(r.wants, 1, roomTick)
	}
}

// close ends the wait for room, for good.
func (r *putter) close() {
	r.closed.Store(true)
	r.wants.Store(0)
	futexWake(r.wants)
}

// wakes says whether who takes out has to be woken, and that it is. answers says that there is something else
// than answers to Writes.
func (r *putter) wakes(answers bool) bool {
	s := r.sleeps.Load()
	return (s == sleepsForAll || s == sleepsForAnswers && answers) && r.sleeps.Swap(awake) != awake
}

const (
	futexOpWait = 0
	futexOpWake = 1
)

// futexWait waits until the word is woken, for no longer than so, if it has the value.
func futexWait(word *atomic.Uint32, value uint32, most time.Duration) {
	ts := unix.NsecToTimespec(most.Nanoseconds())
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexOpWait, uintptr(value), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// futexWake wakes one who waits for the word.
func futexWake(word *atomic.Uint32) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexOpWake, 1, 0, 0, 0)
}
