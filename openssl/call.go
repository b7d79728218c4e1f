package openssl

import (
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The error queue belongs to a thread, and goroutines do not belong to threads (ERR_get_error(3),
// SSL_get_error(3)). Hence the one rule of this file: every call that can put an error on the queue
// runs inside the function exclusive. This function clears the queue, runs the calls, and takes all
// errors out of the queue. Nothing else touches the queue.

// exclusive runs f, which makes one or more calls to OpenSSL. It returns the errors that they have
// queued, the oldest first. Meanwhile the goroutine keeps its thread. f must not wait for anything,
// and must not call exclusive.
//
// If a goroutine is in C for longer than some 20 µs, Go's scheduler uses one more thread. The gate
// limits the number of these threads. The wait for the gate is short, because nothing in C waits.
func (l *Library) exclusive(f func()) queue {
	return l.exclusiveFor("", 0, func(*thread) { f() })
}

// exclusiveFor does what exclusive does. It also tells the Watcher the method and the connection's
// tag. f gets the thread, and may use its BIO pair and its memory.
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

// The type thread is no OS thread. It is a permission to be in the library, with some memory for
// the stay there. The gate lends it to a goroutine for one stay.
type thread struct {
	number int
	// bio and far are the two ends of a BIO pair. An SSL writes to bio, and Go takes the bytes
	// from far. Outside of a stay the pair is empty, and no SSL uses it. So one pair for each
	// thread is enough for any number of connections.
	bio, far uintptr
	taken    uintptr    // the address that BIO_nread returns
	arg      [4]uintptr // the arguments of calls that must not allocate
}

// A gate has a limited number of threads, and gives each to one goroutine at a time. It gives the
// thread that came back most recently, because its memory is likely to be in the processor's cache.
type gate struct {
	room chan struct{} // has an element for each thread that a goroutine has
	mu   sync.Mutex    // guards free
	free []*thread     // the threads that no goroutine has
}

func newGate() *gate {
	most := 2 * runtime.GOMAXPROCS(0)
	g := &gate{room: make(chan struct{}, most)}
	for n := range most {
		g.free = append(g.free, &thread{number: n})
	}
	return g
}

func (g *gate) enter() *thread {
	g.room <- struct{}{}
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.free) - 1
	t := g.free[last]
	g.free = g.free[:last]
	return t
}

func (g *gate) leave(t *thread) {
	g.mu.Lock()
	g.free = append(g.free, t)
	g.mu.Unlock()
	<-g.room
}

// equip gives each thread its pair of BIOs, and makes l.empty, a BIO that is always empty. Call
// equip after OPENSSL_init_ssl, and before another goroutine uses the library.
func (l *Library) equip() error {
	var ok bool
	q := l.exclusiveFor("", 0, func(own *thread) {
		l.empty = call(l.sym.bioNew, call(l.sym.bioSMem))
		ok = l.empty != 0
		for _, t := range append(l.gate.free, own) {
			ok = l.newBIOPair(t) && ok
		}
	})
	if !ok {
		return internalError("BIO_new", q)
	}
	return nil
}

// newBIOPair makes the pair of a thread. Call it inside exclusive. If it fails, the thread has no
// pair, and every operation that gets this thread fails.
func (l *Library) newBIOPair(t *thread) bool {
	var ends struct{ near, far uintptr } // on the heap, where C may write
	call(l.sym.bioNewPair, uintptr(unsafe.Pointer(&ends.near)), bioBytes,
		uintptr(unsafe.Pointer(&ends.far)), 1)
	t.bio, t.far = ends.near, ends.far
	return t.bio != 0 && t.far != 0
}

// freeBIOPair frees the pair of a thread. An SSL may still have a reference to bio (attach). Then
// OpenSSL frees bio when the SSL gets another BIO, or is freed.
func (t *thread) freeBIOPair(l *Library) {
	call(l.sym.bioFree, t.bio)
	call(l.sym.bioFree, t.far)
}

// A Watcher is called when threads enter and leave the library. So the program can say after a
// crash what each thread did, and notices a thread that does not return. The parameter thread is
// the thread's number, from 0. No two threads in the library have the same number. The parameter
// method is the tls method that the work is for, such as "tls.Read", or "" if it is not known here.
// The parameter tag is the value from [Conn.SetTag], or 0. A Watcher must not wait.
type Watcher interface {
	Enter(thread int, method string, tag int32)
	Leave(thread int)
}

// The function call calls the C function at the address fn. This package calls functions of OpenSSL
// in no other way. The caller must convert the result to the type that the C function returns:
// int32 for int, int64 for long, uintptr for a pointer.
//
//go:uintptrescapes
func call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}

// errno returns the address of the C library's errno on this (locked) thread.
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

// A queue has the errors that exclusive has taken from the error queue, the oldest first.
type queue []queued

// If the queue never becomes empty, drain stops after mostQueued errors. OpenSSL's queue has room
// for fewer: 16 (ERR_NUM_ERRORS).
const mostQueued = 64

// drain empties the queue of this thread.
func (l *Library) drain() queue {
	var q queue
	for len(q) < mostQueued && call(l.sym.errPeek) != 0 {
		// ERR_get_error_all writes the details into out. C may write there, because out is
		// on the heap.
		var out struct {
			file, function, data uintptr
			line, flags          int32
		}
		var code uint64
		switch {
		case l.sym.errGetAll != 0:
			code = uint64(call(l.sym.errGetAll, uintptr(unsafe.Pointer(&out.file)),
				uintptr(unsafe.Pointer(&out.line)),
				uintptr(unsafe.Pointer(&out.function)),
				uintptr(unsafe.Pointer(&out.data)),
				uintptr(unsafe.Pointer(&out.flags))))
		case l.sym.errGetLineData != 0:
			code = uint64(call(l.sym.errGetLineData, uintptr(unsafe.Pointer(&out.file)),
				uintptr(unsafe.Pointer(&out.line)),
				uintptr(unsafe.Pointer(&out.data)),
				uintptr(unsafe.Pointer(&out.flags))))
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

// has() says whether libssl has queued one of these reasons.
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

// reason is the text of the first error, which is usually the cause of the others.
func (q queue) reason() string {
	if len(q) == 0 {
		return "no reason given"
	}
	return q[0].short
}

// The method strings returns the texts of the queue, for the field Queue of an error.
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
	// go vet warns of unsafe.Pointer(p), which would be wrong for an address in Go's heap. But
	// p is an address in C's memory. Reading p as a pointer avoids the warning.
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

// cString is s with a NUL at its end. Keep it alive as long as C needs it.
func cString(s string) *byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return &b[0]
}
