package session

import (
	"context"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tlsd/internal/audit"
	"tlsd/internal/kind"
	"tlsd/internal/policy"
	"tlsd/openssl"
)

// Handle identifies a connection or a server context within one session. Handles
// count from 1 and fit in an int32.
type Handle int32

// Timeouts bound the waits that depend on the network. Zero means the default.
type Timeouts struct {
	Connect         time.Duration // NewClient: look-up and all addresses together; 30 s
	Handshake       time.Duration // Handshake; 30 s
	AcceptHandshake time.Duration // one client's handshake under Accept; 10 s
	Accept          time.Duration // Accept, until it has a client; none
	Read            time.Duration // Read; none
	Write           time.Duration // each piece of a Write (see writePiece); 30 s
	Close           time.Duration // for what was written to arrive, once a connection is closed; 1 s
}

// Limits bound what one session may hold. Zero means the default.
type Limits struct {
	Handles int // open handles; 65536
	Calls   int // calls that have not ended; 4096
	Pending int // clients per listener that no Accept has claimed; 128
}

// Config is what a session is made with.
type Config struct {
	Engine   Engine
	Timeouts Timeouts
	Limits   Limits
	// SkipFailedHandshakes is how server contexts begin: Accept goes on after a client whose
	// handshake has failed.
	SkipFailedHandshakes bool
	// ReloadCertificates is how server contexts begin: files that have been renewed are taken.
	ReloadCertificates bool
	// Policy is what the administrator allows; the zero value is everything.
	Policy policy.Policy
	// Audit, if not nil, is told of what the administrator always wants to know. It is called
	// by the goroutines of calls and must not wait.
	Audit func(audit.Event)
	// Observer, if not nil, is told of what the log may have.
	Observer Observer
	// Meter, if not nil, counts what the session does.
	Meter Meter
}

// WithDefaults replaces zeros by the defaults.
func (c Config) WithDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Timeouts.Connect, 30*time.Second)
	def(&c.Timeouts.Handshake, 30*time.Second)
	def(&c.Timeouts.AcceptHandshake, 10*time.Second)
	def(&c.Timeouts.Write, 30*time.Second)
	def(&c.Timeouts.Close, time.Second)
	lim := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	lim(&c.Limits.Handles, 65536)
	lim(&c.Limits.Calls, 4096)
	lim(&c.Limits.Pending, 128)
	return c
}

// Session is one caller's world. See the package comment.
type Session struct {
	Config // immutable

	stallTimeout  time.Duration           // turnGrace, but in tests
	reasonTimeout time.Duration           // likewise
	reloadPause   time.Duration           // reloadPause, but in tests
	resolver      *net.Resolver           // nil, the system's, but in tests
	attemptPause  func() <-chan time.Time // between attempts to connect: attemptDelay, but in tests
	ctx           context.Context         // done when the session ends
	cancel        context.CancelCauseFunc
	running       sync.WaitGroup // calls that have not ended

	finishSlots   chan struct{} // has one element for each connection that is being finished in the background
	background    sync.WaitGroup
	finishCtx     context.Context // done when that is to be cut short
	stopFinishing context.CancelFunc

	lastMoved atomic.Int64 // Unix nanoseconds
	meter     meter

	mu         sync.Mutex // guards all below, and the mutable fields of handles
	seq        uint64
	calls      map[*Call]struct{} // made and not ended
	changed    chan struct{}      // see news; nil if nobody waits for it
	lastHandle Handle             // the highest number given out; the next one is one more
	handleUsed bool               // one has been given out
	conns      map[Handle]*connection
	contexts   map[Handle]*serverContext
	watched    map[Handle]waitable // those of the option watch
	lastReady  Handle              // the last that a Wait has given
	trust      *trust
	sessions   openssl.SessionCache // of clients, to be resumed; it guards itself
	lastError  string

	connectTimeout time.Duration // of each NewClient that is made from now on; 0: the session's own
	handlesMade    int           // handles that were given out
}

// New starts a session. End must be called.
func New(cfg Config) *Session {
	s := &Session{
		Config:        cfg.WithDefaults(),
		stallTimeout:  stallTimeout,
		reasonTimeout: reasonTimeout,
		reloadPause:   reloadPause,
		attemptPause:  func() <-chan time.Time { return time.After(attemptDelay) },
		calls:         map[*Call]struct{}{},
		conns:         map[Handle]*connection{},
		contexts:      map[Handle]*serverContext{},
		watched:       map[Handle]waitable{},
	}
	s.meter.next = cfg.Meter
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.finishCtx, s.stopFinishing = context.WithCancel(context.Background())
	s.finishSlots = make(chan struct{}, maxFinishing)
	s.trust = newTrust(s)
	s.trust.settled = closedChan
	return s
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// End ends all calls with kind "cancelled", frees everything that the session owns, and returns
// when it is gone. Connections that were not closed are cut without close_notify, so that a peer
// can tell that its partner has not ended in an orderly way; what was sent on a data channel leaves
// before, within Timeouts.Close. This does not wait for those that are still being finished, but
// End does (see Hurry). Each Call that was made must be, or have been, Run. No method may be called
// after it.
func (s *Session) End() {
	s.cancel(errEnded)
	s.running.Wait()
	for _, c := range s.contexts {
		_ = c.close(s.ctx)
	}
	for _, c := range slices.Collect(maps.Values(s.conns)) {
		if c.pumps == nil {
			c.cut(s.ctx)
		} else {
			s.background.Go(func() { c.cut(s.ctx) })
		}
	}
	s.trust.release()
	s.background.Wait()
	s.sessions.Free()
	s.stopFinishing()
	if s.Observer != nil {
		s.Observer.Over(Totals{Handles: s.handlesMade, Received: s.meter.received.Load(),
			Sent: s.meter.sent.Load()})
	}
}

// LastMoved is when bytes have last gone over a data channel; the zero time if they never have. It
// may be late by movedGrain.
func (s *Session) LastMoved() time.Time {
	if n := s.lastMoved.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// movedGrain keeps pumps from writing the same word all the time.
const movedGrain = 10 * time.Millisecond

func (s *Session) moved() {
	now := time.Now().UnixNano()
	if now-s.lastMoved.Load() > int64(movedGrain) {
		s.lastMoved.Store(now)
	}
}

// Fail records err, an error of a request that made no call, as the
// session's last error.
func (s *Session) Fail(err error) {
	s.mu.Lock()
	s.lastError = err.Error()
	s.mu.Unlock()
}

// SkipHandle takes the next number for a call that was to make a handle but
// has failed before it could be made.
func (s *Session) SkipHandle() {
	s.mu.Lock()
	s.nextHandle()
	s.mu.Unlock()
}

// StartAt sets the number of the first handle. It fails when a number has been
// taken already.
func (s *Session) StartAt(first Handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handleUsed {
		return fail(kind.State, "firstHandle %d: handle %d has been given out already", first, s.lastHandle)
	}
	s.lastHandle = first - 1
	return nil
}

// Busy reports the calls that have not ended.
func (s *Session) Busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// take gives out the next number, or 0 if there is none left. s.mu must be held.
func (s *Session) nextHandle() Handle {
	if s.lastHandle == math.MaxInt32 {
		return 0
	}
	s.lastHandle++
	s.handlesMade++
	s.handleUsed = true
	return s.lastHandle
}

// reserve gives out a number for a handle that is to be made. s.mu must be held.
func (s *Session) reserve() (Handle, *Error) {
	h := s.nextHandle()
	if h == 0 {
		return 0, fail(kind.Limit, "all %d handle numbers of this session are used up; start a new session", math.MaxInt32)
	}
	if n := len(s.conns) + len(s.contexts); n >= s.Limits.Handles {
		return 0, fail(kind.Limit, "%d handles are open, the limit of a session (--max-handles); close some", n)
	}
	return h, nil
}

// connection finds an open connection handle. s.mu must be held.
func (s *Session) connection(h Handle) (*connection, *Error) {
	if c := s.conns[h]; c != nil && !c.closing {
		return c, nil
	}
	if s.contexts[h] != nil {
		return nil, fail(kind.Handle, "it is a server context, not a connection")
	}
	return nil, s.unknown(h)
}

// context finds an open context handle. s.mu must be held.
func (s *Session) context(h Handle) (*serverContext, *Error) {
	if c := s.contexts[h]; c != nil && !c.closing {
		return c, nil
	}
	if s.conns[h] != nil {
		return nil, fail(kind.Handle, "it is a connection, not a server context")
	}
	return nil, s.unknown(h)
}

func (s *Session) unknown(h Handle) *Error {
	if s.handleUsed && h > 0 && h <= s.lastHandle {
		return fail(kind.Handle, "it is closed, or the call that was to make it failed")
	}
	return fail(kind.Handle, "no such handle in this session")
}

// Backend says whether there is TLS: "openssl" or "stub".
func (s *Session) Backend() *Call {
	return s.instant("tls.Backend", func() (any, error) { return s.Engine.Backend(), nil })
}

// LibraryVersion is the library's own version text.
func (s *Session) LibraryVersion() *Call {
	return s.instant("tls.Version", func() (any, error) { return s.Engine.Version(), nil })
}

func (s *Session) instant(op string, run func() (any, error)) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.newCall(op, 0, func(context.Context) (any, error) { return run() })
	c.waits = false
	return c
}

// LastError is the text of the most recent error. It takes its turn behind the
// calls that were made before it.
func (s *Session) LastError() *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var c *Call
	busy := len(s.calls) > 0
	c = s.newCall("tls.LastError", 0, func(ctx context.Context) (any, error) {
		c.awaitEarlier(ctx, 0)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lastError, nil
	})
	c.waits = busy
	return c
}
