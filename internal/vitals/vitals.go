// Package vitals has the page of vitals: memory in which a worker notes what it is doing. If the
// worker dies, the supervisor reads the notes. If a call into the library does not return, the
// notes show that, too.
//
// The page is a memfd of fixed size. The supervisor makes it, shares it with one worker, and seals
// it, so that the worker cannot shrink it. A system without memfd has an unlinked temporary file
// instead, without a seal. The layout of the page follows. A word has 32 bits here, in the
// machine's byte order. Each word is written atomically. Counters and certificates consist of pairs
// of words, and each pair is written atomically, as one word of 64 bits.
//
//	byte 0     threads  256 × 2 words: sequence, work
//	byte 2048  counters, of 2 words each: see Counter
//	byte 2560  certificates 16 × 8 words: see Certificate
//	byte 4096  sessions, a slot of 4 words each: writing, calling, handle, (unused)
//
// The words:
//
//   - "sequence" counts up when a thread enters the library, and when it leaves. So an odd value
//     means that the thread is inside. While the value is odd, "work" is the number of the method
//     that the thread works for.
//   - "writing" is the number of answers that are being written to the caller. It stays above 0 if
//     an answer could not be written in whole.
//   - "calling" is the number of the method of a call in flight, or 0 if there is no call. "handle"
//     is the handle of that call, or 0.
//
// The number of a method is its index in the list methods, plus 1.
//
// The worker writes the page, and the worker is not trusted. So the supervisor ignores numbers out
// of range, and reads no text from the page.
package vitals

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// FD is the worker's descriptor of the page.
	FD = 4
	// Threads is the number of threads for which the page has room. Other threads in the
	// library are not noted.
	Threads = 256

	headerBytes  = 4096
	sessionBytes = 16
)

// methods has the names for the numbers in the words calling and work. The order has no meaning,
// because both sides are the same program.
var methods = []string{
	"tls.NewClient", "tls.Handshake", "tls.Write", "tls.Read", "tls.Close",
	"tls.SetInsecureSkipVerify", "tls.NewServerContext", "tls.Accept", "tls.CloseServerContext",
	"tls.SetCaBundle", "tls.PeerCertSubject", "tls.SetTimeout", "tls.Backend", "tls.Version",
	"tls.LastError", "tls.Hello", "tls.Info", "$/cancelRequest", "rpc.discover", "tls.Status",
	"tls.Flush", "tls.Shutdown", "tls.SetOption", "tls.SetCertificate", "tls.Listen",
	"tls.ReadPlain", "tls.WritePlain", "tls.Wait", "tls.Signal",
}

func number(method string) uint32 { return uint32(slices.Index(methods, method) + 1) }

func name(n uint32) string {
	if n < 1 || int(n) > len(methods) {
		return ""
	}
	return methods[n-1]
}

// Known says whether the page has a number for the method.
func Known(method string) bool { return number(method) != 0 }

// A Page is the page in the memory of one of the two processes. All methods except Close are safe
// for concurrent use.
type Page struct{ mem []byte }

// New makes a page for a worker of n sessions, and the file that becomes descriptor [FD] of the
// worker. The caller closes both.
func New(n int) (*Page, *os.File, error) {
	f, err := memory(int64(headerBytes + n*sessionBytes))
	if err != nil {
		return nil, nil, err
	}
	p, err := open(int(f.Fd()))
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("make the page of vitals: %w", err)
	}
	return p, f, nil
}

// Open maps the page in the worker, from descriptor [FD], and closes the descriptor.
func Open() (*Page, error) {
	p, err := open(FD)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is not the page of vitals: %w", FD, err)
	}
	unix.Close(FD)
	return p, nil
}

func open(fd int) (*Page, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Size < headerBytes || st.Size > 1<<30 {
		return nil, fmt.Errorf("it has %d bytes", st.Size)
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &Page{mem}, nil
}

// Close unmaps the page. The page must not be used afterwards.
func (p *Page) Close() error { return unix.Munmap(p.mem) }

func (p *Page) word(at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&p.mem[at]))
}

// Enter notes that a thread enters the library, for the work of a method. An empty or unknown
// method stands for no method. The parameter thread is a number: threads that are inside at the
// same time must have different numbers. A number that is not below Threads is ignored.
func (p *Page) Enter(thread int, method string, _ int32) {
	if thread < Threads {
		p.word(8*thread + 4).Store(number(method))
		p.word(8 * thread).Add(1)
	}
}

// Leave notes that the thread has left the library.
func (p *Page) Leave(thread int) {
	if thread < Threads {
		p.word(8 * thread).Add(1)
	}
}

// A Stay is a thread's time in the library.
type Stay struct {
	Sequence uint32 // does not change during one stay
	Method   string // the method that the stay is for, or ""
}

// Inside returns the threads that are in the library.
func (p *Page) Inside() map[int]Stay {
	in := map[int]Stay{}
	for i := range Threads {
		if sequence := p.word(8 * i).Load(); sequence%2 == 1 {
			in[i] = Stay{sequence, name(p.word(8*i + 4).Load())}
		}
	}
	return in
}

// A Session is the slot of one session in the page.
type Session struct{ writing, calling, handle *atomic.Uint32 }

// Session returns the n-th slot. It fails if n is out of range.
func (p *Page) Session(n int) (*Session, error) {
	at := headerBytes + n*sessionBytes
	if n < 0 || at+sessionBytes > len(p.mem) {
		return nil, fmt.Errorf("the page of vitals has no slot %d for a session", n)
	}
	return &Session{p.word(at), p.word(at + 4), p.word(at + 8)}, nil
}

// Clear makes the slot ready for another session.
func (s *Session) Clear() {
	s.writing.Store(0)
	s.calling.Store(0)
	s.handle.Store(0)
}

// Writing notes that an answer is about to be written.
func (s *Session) Writing() { s.writing.Add(1) }

// Written notes that the answer has been written in whole.
func (s *Session) Written() { s.writing.Add(^uint32(0)) }

// Calling notes the call that is in flight. An empty method means that there is no call.
func (s *Session) Calling(method string, handle int32) {
	s.handle.Store(uint32(handle))
	s.calling.Store(number(method))
}

// MidMessage says whether the caller may have received only a part of a message.
func (s *Session) MidMessage() bool { return s.writing.Load() != 0 }

// InFlight returns what Calling has noted.
func (s *Session) InFlight() (method string, handle int32) {
	return name(s.calling.Load()), int32(s.handle.Load())
}
