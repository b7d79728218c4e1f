package openssl

import (
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The error queue belongs to a thread, goroutines do not (ERR_get_error(3),
// SSL_get_error(3)). Hence the one rule of this file: everything that can put
// an error on the queue runs inside exclusive, which finds the queue empty and
// leaves it empty, and nothing else touches it.

// exclusive runs f, which makes one or more calls to OpenSSL, and returns the errors that they
// have queued, the oldest first. The goroutine keeps its thread meanwhile. f must not
// wait for anything, nor call exclusive.
//
// Goroutines that are in C for longer than some 20 µs cost a thread each. The
// gate bounds them; waiting for it is short, because nothing in C waits.
func (l *Library) exclusive(f func()) queue {
	return l.exclusiveFor("", 0, func(*thread) { f() })
}

// exclusiveFor is exclusive for the work of a method on the connection with a tag. f may use the thread.
func (l *Library) exclusiveFor(method string, tag int32, f func(*thread)) queue {
	t := l.gate.enter()
	runtime.LockOSThread()
	if l.Watcher != nil {
		l.Watcher.Enter(t.number, method, tag)
	}
	defer func() {
		if l.Watcher != nil {
			l.Watcher.Leave(t.number)
		}
		runtime.UnlockOSThread()
		l.gate.leave(t)
	}()
	call(l.sym.errClear)
	f(t)
	return l.drain()
}

// A thread is the right to be in the library, and what belongs to a stay there.
type thread struct {
	number int
	// bio is the memory BIO that an SSL writes to. It is empty, and no SSL has it, outside of a stay; so one
	// for each thread is enough for any number of connections.
	bio uintptr
	arg [4]uintptr // the arguments of calls that must not allocate
	few [1 << 10]byte
}

// A gate lets a bounded number of threads in. The one that has left last enters next: what it has in memory is
// likely to be in the processor's cache.
type gate struct {
	room chan struct{} // one for each thread that is inside
	mu   sync.Mutex    // guards out
	out  []*thread     // those that may enter
}

func newGate() *gate {
	most := 2 * runtime.GOMAXPROCS(0)
	g := &gate{room: make(chan struct{}, most)}
	for n := range most {
		g.out = append(g.out, &thread{number: n})
	}
	return g
}

func (g *gate) enter() *thread {
	g.room <- struct{}{}
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.out) - 1
	t := g.out[last]
	g.out = g.out[:last]
	return t
}

func (g *gate) leave(t *thread) {
	g.mu.Lock()
	g.out = append(g.out, t)
	g.mu.Unlock()
	<-g.room
}

// equip gives each thread its BIO. Nobody else uses the library yet, and there must be no other
// call before OPENSSL_init_ssl.
func (l *Library) equip() error {
	ok := true
	q := l.exclusiveFor("", 0, func(own *thread) {
		for _, t := range append(l.gate.out, own) {
			t.bio = l.newBIO()
			ok = ok && t.bio != 0
		}
	})
	if !ok {
		return internalError("BIO_new", q)
	}
	return nil
}

// newBIO makes a memory BIO. It is called in exclusive.
func (l *Library) newBIO() uintptr { return call(l.sym.bioNew, call(l.sym.bioSMem)) }

// A Watcher is told when threads enter and leave the library, so that it can
// be known what a thread was at when it crashed, or that it does not come back. method
// is the tls method whose work it is, or "" when that is not known here; tag is what [Conn.SetTag] has
// given to the connection, or 0. No two threads have the
// same number at the same time; the numbers count from 0. It must not wait.
type Watcher interface {
	Enter(thread int, method string, tag int32)
	Leave(thread int)
}

// call is the only caller of C. Its result must be converted to what the C function
// returns: int32 for int, int64 for long, uintptr for a pointer.
//
//go:uintptrescapes
func call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}

// errno is where the C library's is, on this (locked) thread.
func (l *Library) errno() *int32 {
	p := call(l.sym.errnoLocation)
	return (*int32)(pointer(p))
}

// A queued is one entry of OpenSSL's error queue.
type queued struct {
	lib, reason int
	text        string // "SSL routines: certificate verify failed: detail"
	short       string // "certificate verify failed"
}

// A queue is what exclusive has taken from the error queue, the oldest first.
type queue []queued

// mostQueued is more than a queue can have (16, ERR_NUM_ERRORS). It ends draining a queue that does not become empty.
const mostQueued = 64

// drain empties the queue of this thread.
func (l *Library) drain() queue {
	var q queue
	for len(q) < mostQueued && call(l.sym.errPeek) != 0 {
		// Filled in by ERR_get_error_all; on the heap, where C may write.
		var out struct {
			file, function, data uintptr
			line, flags          int32
		}
		var code uint64
		switch {
		case l.sym.errGetAll != 0:
			code = uint64(call(l.sym.errGetAll, uintptr(unsafe.Pointer(&out.file)), uintptr(unsafe.Pointer(&out.line)),
				uintptr(unsafe.Pointer(&out.function)), uintptr(unsafe.Pointer(&out.data)), uintptr(unsafe.Pointer(&out.flags))))
		case l.sym.errGetLineData != 0:
			code = uint64(call(l.sym.errGetLineData, uintptr(unsafe.Pointer(&out.file)), uintptr(unsafe.Pointer(&out.line)),
				uintptr(unsafe.Pointer(&out.data)), uintptr(unsafe.Pointer(&out.flags))))
		default:
			code = uint64(call(l.sym.errGet))
		}
		q = append(q, l.entry(code, out.data, out.flags))
	}
	return q
}

func (l *Library) entry(code uint64, data uintptr, flags int32) queued {
	var e queued
	e.lib, e.reason = splitCode(code, l.major)
	e.short = goString(call(l.sym.errReason, uintptr(code)))
	if e.short == "" {
		// An error of the system (fopen …) has an errno in place of a reason.
		if e.reason > 0 && e.reason < 4096 {
			e.short = syscall.Errno(e.reason).Error()
		} else {
			e.short = "unknown error"
		}
	}
	e.text = e.short
	if lib := goString(call(l.sym.errLib, uintptr(code))); lib != "" {
		e.text = lib + ": " + e.text
	}
	if flags&txtString != 0 {
		if s := strings.TrimSpace(goString(data)); s != "" {
			e.text += ": " + s
		}
	}
	return e
}

// splitCode is ERR_GET_LIB and ERR_GET_REASON, macros whose layout changed in 3.0.
func splitCode(code uint64, major int) (lib, reason int) {
	if major < 3 {
		return int(code >> 24 & 0xff), int(code & 0xfff)
	}
	if code&errSystemFlag != 0 {
		return libSys, int(code & (errSystemFlag - 1))
	}
	return int(code >> errLibOffset & 0xff), int(code & errReasonMask)
}

// has tells whether libssl has queued one of these reasons.
func (q queue) has(reasons ...int) bool {
	for _, e := range q {
		for _, r := range reasons {
			if e.lib == libSSL && e.reason == r {
				return true
			}
		}
	}
	return false
}

// reason is the text of the first error, which is as a rule the cause of the others.
func (q queue) reason() string {
	if len(q) == 0 {
		return "no reason given"
	}
	return q[0].short
}

// strings is the queue for an error's Queue field.
func (q queue) strings() []string {
	if len(q) == 0 {
		return nil
	}
	out := make([]string, len(q))
	for i, e := range q {
		out[i] = e.text
	}
	return out
}

// pointer turns an address of C memory into a pointer.
func pointer(p uintptr) unsafe.Pointer {
	// Through its own address, because the conversion is not for Go's heap, which is
	// what vet warns of.
	return *(*unsafe.Pointer)(unsafe.Pointer(&p))
}

// goString copies a NUL-terminated string of C; "" for NULL.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	const most = 1 << 20
	n := 0
	for n < most && *(*byte)(unsafe.Add(pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(pointer(p)), n))
}

// goBytes copies memory of C; nil for NULL.
func goBytes(p uintptr, n int) []byte {
	if p == 0 || n <= 0 {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(pointer(p)), n)...)
}

// cString is s with a NUL behind it. Keep it alive for as long as C needs it.
func cString(s string) *byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return &b[0]
}
