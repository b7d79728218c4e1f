package openssl

import (
	"context"
	"strings"
	"time"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// The parts of the package that tests need.

var (
	SearchList   = searchList
	CheckVersion = checkVersion
	LoadFirst    = loadFirst
	SplitCode    = splitCode
	Home         = home

	Unacknowledged = unacknowledged
)

// ComparePair is comparePair with the path of the libssl.
func ComparePair(file, version string) (finding string, err error) {
	f, err := openImage(file)
	if err != nil {
		return "", err
	}
	defer f.close()
	return comparePair(f, version)
}

// FindTrust is findTrust for a libcrypto that reports these paths. It also counts the certificates.
func FindTrust(file, dir string, fallbackFiles []string, fallbackDir string) TrustStore {
	t := findTrust(locations{file, dir, "SSL_CERT_FILE", "SSL_CERT_DIR"}, fallbackFiles,
		fallbackDir)
	t.store.count()
	return t.store
}

// Verdicts is the number of connections for which the Library keeps a verdict, which is the first
// failure of a verification.
func Verdicts(l *Library) (n int) {
	l.verdicts.Range(func(any, any) bool { n++; return true })
	return n
}

// Keepers is the number of connections for which the Library keeps sessions.
func Keepers(l *Library) (n int) {
	l.keepers.Range(func(any, any) bool { n++; return true })
	return n
}

// Age makes all sessions of a cache older.
func (s *SessionCache) Age(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.stored {
		s.stored[i].since = s.stored[i].since.Add(-by)
	}
}

// The bounds of a SessionCache.
const (
	MostSessions  = mostSessions
	MostOfOneKey  = mostOfOneKey
	OldestSession = oldestSession
)

// SymbolNames are the names of the functions that the package looks up, without the functions that
// tell the version.
func SymbolNames() (names []string) {
	var s symbols
	for _, sym := range s.table() {
		names = append(names, strings.Fields(sym.names)...)
	}
	return names
}

// OperationArguments returns the number of arguments of each call that an op makes. The keys are
// fields of symbols.
func OperationArguments() map[string]int {
	c := &Conn{lib: &Library{}}
	s := &c.lib.sym
	fields := map[uintptr]string{1: "sslDoHandshake", 2: "sslRead", 3: "sslWrite",
		4: "sslShutdown"}
	s.sslDoHandshake, s.sslRead, s.sslWrite, s.sslShutdown = 1, 2, 3, 4
	o := c.op()
	found := map[string]int{"sslGetError": len(o.errArg)}
	for _, kind := range []opKind{opHandshake, opRead, opWrite, opShutdown} {
		o.prepare(context.Background(), kind, make([]byte, 1))
		found[fields[o.fn]] = len(o.args)
	}
	return found
}

// WaitsForRoom says whether a Write or CloseWrite waits until the peer takes the sealed data.
func WaitsForRoom(c *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sending
}

// WasReset says whether a reset of the peer has arrived. It leaves the error to the next call.
func WasReset(c *Conn) (was bool) {
	_ = c.raw.Control(func(fd uintptr) { was = poll(fd, 0)&unix.POLLERR != 0 })
	return was
}

// InMessage says whether a Read has met only a part of a message of the handshake layer.
func InMessage(c *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inMessage
}

// PretendInMessage makes the next Write wake the Read that waits. If the Read goes into the library
// before this Write, PretendInMessage has no effect.
func PretendInMessage(c *Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inMessage = true
}

// Freed says whether the SSL of a Conn is freed.
func Freed(c *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ssl == 0
}

// RefuseHandshakes makes SSL_do_handshake do nothing but return 0.
func RefuseHandshakes(l *Library) {
	l.sym.sslDoHandshake = purego.NewCallback(func(_ uintptr) uintptr { return 0 })
}

// WantMessage makes c behave as if a Write were about to wait for the rest of a message.
func WantMessage(c *Conn) { c.wanting.Add(1) }

// Reads says whether a Read or WaitReset has locked Conn.reading.
func Reads(c *Conn) bool { return len(c.reading.held) > 0 }

// TakeReading locks Conn.reading for a moment.
func TakeReading(ctx context.Context, c *Conn) error {
	if err := c.reading.lock(ctx, c.done); err != nil {
		return err
	}
	c.reading.unlock()
	return nil
}
