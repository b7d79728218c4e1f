package openssl

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/ebitengine/purego"
)

// A Library is a libssl that is loaded into this process, with its libcrypto. It stays loaded until
// the process ends. All methods are safe for concurrent use.
type Library struct {
	// Watcher, if not nil, is called when a thread enters the library and when it leaves. Set
	// Watcher before the first use of the Library.
	Watcher Watcher

	// KeyLog, if not nil, is called with the secrets of each connection, as lines of the NSS
	// key log format without the line feeds. Several goroutines call it at the same time, in
	// the middle of handshakes. Set KeyLog before the first use of the Library.
	KeyLog func(line string)

	sym     symbols
	empty   uintptr // a memory BIO without bytes, for a check in the method step
	major   int     // 1, 3 or 4
	version string  // OpenSSL_version(0)
	path    string
	pair    string // see Pair

	gate     *gate    // see exclusive
	verifyCB uintptr  // a C function that calls recordVerify
	exIndex  uintptr  // where an X509_STORE_CTX has its SSL, for X509_STORE_CTX_get_ex_data
	verdicts sync.Map // address of an SSL -> *verdict

	alpnCB, servernameCB uintptr       // C functions that call selectALPN and chooseHost
	newSessionCB         uintptr       // a C function that calls keepSession
	keylogCB             uintptr       // a C function that calls logSecret
	keepers              sync.Map      // address of an SSL -> *Conn that keeps TLS sessions
	servers              sync.Map      // number -> *serverSettings
	lastServer           atomic.Uint64 // the number that was given out last

	trustMu  sync.Mutex  // guards the next three fields; held while trust files are read
	trust    *trustState // the system's trust store
	trustCtx uintptr     // an SSL_CTX that trusts this store; we own a reference; 0: not loaded
	trustGen int         // how many SSL_CTXs loadTrust has made; for the store's id
}

// tested are the major versions of OpenSSL with which this package was tested. The field least is
// the smallest OPENSSL_VERSION_NUMBER that is accepted. Other major versions are refused, because
// they may have another ABI.
var tested = []struct {
	major int
	least uint64
}{
	{1, 0x10101000}, // 1.1.1; 1.1.0 lacks functions, and TLS 1.3
	{3, 0x30000000},
	{4, 0x40000000},
}

// loaded has the libraries that Load has loaded. For the same file Load returns the same Library.
// No library is ever unloaded, because its code has destructors of thread-local data, which each
// thread runs when it ends.
var loaded = struct {
	sync.Mutex
	byName   map[string]*Library
	byHandle map[uintptr]*Library // one library may have several names
}{byName: map[string]*Library{}, byHandle: map[uintptr]*Library{}}

// Load loads libssl from path, which is passed to dlopen(3): a file, or a bare name that the
// dynamic linker looks for. With "" it tries the names of this platform, the newest version first,
// and takes the first usable library. A usable library is OpenSSL 1.1.1, 3.x or 4.x, has all needed
// symbols, and has a libcrypto of the same build, as far as tlsd can check.
//
// The error is a *LoadError. Loading the same library again returns the same *Library.
func Load(path string) (*Library, error) {
	names := searchList(runtime.GOOS)
	if path != "" {
		names = []string{path}
	}
	return loadFirst(names)
}

// loadFirst loads the first usable library.
func loadFirst(names []string) (*Library, error) {
	loaded.Lock()
	defer loaded.Unlock()
	failed := &LoadError{}
	for _, name := range names {
		l, err := load(name)
		if err == nil {
			return l, nil
		}
		failed.Tried = append(failed.Tried, Attempt{name, err})
	}
	return nil, failed
}

// searchList has the names that Load("") tries.
func searchList(goos string) []string {
	switch goos {
	case "darwin": // Homebrew does not put its OpenSSL on the linker's path.
		names := []string{"libssl.4.dylib", "libssl.3.dylib", "libssl.1.1.dylib"}
		for _, prefix := range []string{"/opt/homebrew/opt/", "/usr/local/opt/"} {
			names = append(names,
				prefix+"openssl@4/lib/libssl.4.dylib",
				prefix+"openssl@3/lib/libssl.3.dylib",
				prefix+"openssl@1.1/lib/libssl.1.1.dylib")
		}
		return names
	case "freebsd": // The base system has its own numbers: 35, 30 and 111.
		return []string{"libssl.so.4", "libssl.so.35", "libssl.so.30", "libssl.so.111",
			"libssl.so.3", "libssl.so.1.1"}
	default:
		return []string{"libssl.so.4", "libssl.so.3", "libssl.so.1.1"}
	}
}

// load loads one library. The caller holds loaded's lock.
func load(name string) (*Library, error) {
	if l := loaded.byName[name]; l != nil {
		return l, nil
	}
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return nil, errors.New("only 64-bit machines are supported: OpenSSL's 64-bit " +
			"arguments are passed as one word here")
	}
	// Dlopen calls dlerror(3), which reports the last failure of the calling thread. So the
	// goroutine must keep its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	l := loaded.byHandle[handle]
	if l == nil {
		if l, err = bind(name, handle); err != nil {
			return nil, err
		}
		loaded.byHandle[handle] = l
	}
	loaded.byName[name] = l
	return l, nil
}

// bind makes a Library of a dlopen handle. The same handle finds the symbols of the libcrypto with
// which this libssl is linked.
func bind(name string, handle uintptr) (*Library, error) {
	lookup := func(name string) uintptr {
		p, _ := purego.Dlsym(handle, name) // an error means 0, and resolve reports it
		return p
	}
	l := &Library{gate: newGate()}
	if err := resolve(l.sym.versionTable(), lookup); err != nil {
		return nil, err
	}
	l.version = goString(call(l.sym.opensslVersion, 0))
	var err error
	if l.major, err = checkVersion(uint64(call(l.sym.opensslVersionNum)),
		l.version); err != nil {
		return nil, err
	}
	if err := resolve(l.sym.table(), lookup); err != nil {
		return nil, fmt.Errorf("%s: %w", l.version, err)
	}
	if err := l.checkFiles(); err != nil {
		return nil, err
	}
	// OPENSSL_init_ssl(3) must come before the library makes its first object. Without
	// initNoAtexit, OpenSSL would free its memory when the process exits, while other threads
	// still use this memory.
	ok := false
	q := l.exclusive(func() {
		ok = int32(call(l.sym.initSSL,
			initNoAtexit|initLoadSSLStrings|initLoadCryptoStrings, 0)) == 1
		l.exIndex = uintptr(int32(call(l.sym.sslExDataIndex)))
	})
	if !ok {
		return nil, fmt.Errorf("%s: %w", l.version, internalError("OPENSSL_init_ssl", q))
	}
	if err := l.equip(); err != nil {
		return nil, fmt.Errorf("%s: %w", l.version, err)
	}
	if err := l.checkQueue(); err != nil {
		return nil, err
	}
	l.verifyCB = purego.NewCallback(l.recordVerify)
	l.alpnCB = purego.NewCallback(l.selectALPN)
	l.servernameCB = purego.NewCallback(l.chooseHost)
	l.newSessionCB = purego.NewCallback(l.keepSession)
	l.keylogCB = purego.NewCallback(l.logSecret)
	l.path = mappedFile(l.sym.sslNew)
	if l.path == "" {
		l.path = name
	}
	return l, nil
}

// checkVersion returns the major version, or refuses a version that this package was never tested
// with. The parameter num is OPENSSL_VERSION_NUMBER: 0xMNNFFPPS up to 1.1.1, 0xMNN00PP0 since 3.0.
func checkVersion(num uint64, text string) (major int, err error) {
	major = int(num >> 28)
	if !strings.HasPrefix(text, "OpenSSL ") {
		return 0, fmt.Errorf("%q is not OpenSSL", text)
	}
	for _, t := range tested {
		if major == t.major && num >= t.least {
			return major, nil
		}
	}
	return 0, fmt.Errorf("%s is not supported: need OpenSSL 1.1.1, 3.x or 4.x", text)
}

// Version is the library's own text, such as "OpenSSL 3.0.19 27 Jan 2026".
func (l *Library) Version() string { return l.version }

// Path is the file that the library was loaded from, with symbolic links resolved. If the system
// has no /proc/self/maps, Path is the name that Load was given.
func (l *Library) Path() string { return l.path }

// QueuedErrors empties the error queue of the calling goroutine's thread, and returns the number of
// errors that were on it. It is for tests. A test locks its goroutine to a thread and expects 0,
// because every method of this package leaves the queue empty.
func (l *Library) QueuedErrors() int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return len(l.drain())
}

// mappedFile returns the path of the file that is mapped at an address, or "" if it is not known
// (proc_pid_maps(5)).
func mappedFile(addr uintptr) string {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 7f1c…000-7f1c…000 r-xp 0001e000 fe:00 1234   /usr/lib/libssl.so.3
		span, rest, _ := strings.Cut(sc.Text(), " ")
		from, to, _ := strings.Cut(span, "-")
		lo, err1 := strconv.ParseUint(from, 16, 64)
		hi, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && lo <= uint64(addr) && uint64(addr) < hi {
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				return rest[i:]
			}
		}
	}
	return ""
}
