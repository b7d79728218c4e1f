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

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// A Handle identifies a connection or a server context within one session. Handles count from 1, or
// from the number of StartAt, and fit in an int32.
type Handle int32

// A Session has all that one caller owns. See the package comment.
type Session struct {
	Config // immutable

	// New sets these to the constants of the same names. Tests set other values.
	stallTimeout, reasonTimeout, reloadPause time.Duration

	resolver     *net.Resolver           // nil: the system's resolver; tests set another
	attemptPause func() <-chan time.Time // see attemptDelay; tests set another
	ctx          context.Context         // done when the session ends
	cancel       context.CancelCauseFunc
	running      sync.WaitGroup // calls whose done is not closed yet (see Call)

	// one element for each connection that is being closed in the background
	finishSlots   chan struct{}
	background    sync.WaitGroup
	finishCtx     context.Context // done when the closing in the background must stop waiting
	stopFinishing context.CancelFunc

	lastMoved atomic.Int64 // Unix nanoseconds, see LastMoved
	meter     meter

	mu         sync.Mutex // guards all below, and the mutable fields of handles
	seq        uint64
	calls      map[*Call]struct{} // the calls that have not ended
	changed    chan struct{}      // see nextChange; nil if no call waits for it
	lastHandle Handle             // the newest handle; at the start: the first one minus 1
	handleUsed bool               // a handle number has been taken
	conns      map[Handle]*connection
	contexts   map[Handle]*serverContext
	watched    map[Handle]waitable // the handles whose option watch is 1
	lastReady  Handle              // the handle that the newest Wait has returned
	trust      *trust
	sessions   openssl.SessionCache // TLS sessions that clients can resume; it has its own lock
	lastError  string

	connectTimeout time.Duration // for later NewClients; 0: Timeouts.Connect
	handlesMade    int           // how many numbers were taken, for the observer
}

// New starts a session. The owner must call End.
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

// End ends all calls with kind "cancelled", and waits until Run has ended for each Call. Then it
// sends the bytes of the data channels, and waits until the peers' systems have acknowledged all
// bytes. It ends the open connections without close_notify, so each peer can tell that the
// conversation was not complete. End also waits for the connections that are being closed in the
// background (see finish.go). At last it frees everything that the session owns. After End, no
// method that returns a Call may be called.
func (s *Session) End() {
	s.cancel(errEnded)
	s.running.Wait()
	for _, c := range s.contexts {
		_ = c.close(s.ctx)
	}
	for _, c := range slices.Collect(maps.Values(s.conns)) {
		s.background.Go(func() { c.cut(s.ctx) })
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

// LastMoved is the time of the newest bytes on a data channel, or the zero time if there were none.
// The result may be too early, by at most movedGrain.
func (s *Session) LastMoved() time.Time {
	if n := s.lastMoved.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// movedGrain is the shortest time between two changes of lastMoved. The pumps of all connections
// share this field, so they should write it rarely.
const movedGrain = 10 * time.Millisecond

func (s *Session) moved() {
	now := time.Now().UnixNano()
	if now-s.lastMoved.Load() > int64(movedGrain) {
		s.lastMoved.Store(now)
	}
}

// Fail makes err the session's last error. It is for requests that never became a Call, and for
// Status.
func (s *Session) Fail(err error) {
	s.mu.Lock()
	s.lastError = err.Error()
	s.mu.Unlock()
}

// SkipHandle uses up the next number. It is for a request that would have made a handle, but failed
// before it became a Call.
func (s *Session) SkipHandle() {
	s.mu.Lock()
	s.nextHandle()
	s.mu.Unlock()
}

// StartAt sets the number of the first handle. It fails if a number has been used already.
func (s *Session) StartAt(first Handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handleUsed {
		return fail(kind.State, "firstHandle %d: handle %d has been given out already",
			first, s.lastHandle)
	}
	s.lastHandle = first - 1
	return nil
}

// Busy is the number of calls that have not ended.
func (s *Session) Busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// nextHandle takes the next number. It returns 0 if no number is left. s.mu must be held.
func (s *Session) nextHandle() Handle {
	if s.lastHandle == math.MaxInt32 {
		return 0
	}
	s.lastHandle++
	s.handlesMade++
	s.handleUsed = true
	return s.lastHandle
}

// reserve takes a number for a handle that a call will make. If the session has too many open
// handles, it fails, and the number is used up. s.mu must be held.
func (s *Session) reserve() (Handle, *Error) {
	h := s.nextHandle()
	if h == 0 {
		return 0, fail(kind.Limit, "all %d handle numbers of this session are used up; "+
			"start a new session", math.MaxInt32)
	}
	if n := len(s.conns) + len(s.contexts); n >= s.Limits.Handles {
		return 0, fail(kind.Limit, "%d handles are open, the limit of a session "+
			"(--max-handles); close some", n)
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
		return fail(kind.Handle, "it is closed, or the call that was to make it has failed")
	}
	return fail(kind.Handle, "no such handle in this session")
}

// Backend is "openssl", or "stub" if there is no TLS library.
func (s *Session) Backend() *Call {
	return s.instant("tls.Backend", func() (any, error) { return s.Engine.Backend(), nil })
}

// LibraryVersion is the version text of the TLS library.
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

// LastError is the text of the most recent error. The call waits for the calls that were made
// before it. It stops waiting when none of them ends within stallTimeout.
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
