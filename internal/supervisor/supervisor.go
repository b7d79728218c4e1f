// Package supervisor is the part of tlsd that lives as long as the daemon: it
// listens, decides who may connect, hands each accepted connection to a worker
// process, and sees to it that workers are there, are watched and are gone at the end. It
// never loads a TLS library and never reads a byte of what callers send.
//
// # Promises
//
//   - A connection is in one worker's hands. The supervisor keeps a copy of its descriptor,
//     from which it never reads, and closes it when the worker reports the session's end.
//   - When a worker dies, its callers, and only those, are told why in one line of the protocol,
//     where that line cannot fall into the middle of another, and their connections are ended.
//   - A worker acts with the caller's user and groups if the daemon runs as root. It is root's
//     until it has closed all ways to it, and takes them then itself (see package confine): its
//     user cannot stop or trace it before.
//   - A caller that is turned away is told why, in one line of the protocol.
//   - A session is bound by the policy that held for its user when it began; the worker enforces
//     it.
//   - No user's workers, and no user's callers, hold up the start of another user's.
//   - No error of accept(2) ends the daemon or makes it spin.
//   - [Supervisor.Run] returns when every goroutine and every process that it started is gone. It
//     waits for none for ever: a process that was killed, and that another one keeps from ending,
//     is left behind. If the daemon is killed, its workers go by themselves.
//
// The worker's side of the channel is in package handoff; what a worker does with a
// connection is the business of the program.
package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsd/internal/audit"
	"tlsd/internal/policy"
)

// How Run can end other than well.
var (
	ErrDrainTimeout = errors.New("sessions were still open when the drain timeout was over, and were ended")
	ErrForced       = errors.New("sessions were still open, and were ended by force")
)

// forceTimeout bounds the wait for workers that were killed when everything is to end at once.
const forceTimeout = 2 * reapTimeout

// Config is what a Supervisor works with. All of it is needed but where said.
type Config struct {
	Log    *zap.Logger
	Socket *Socket
	Policy Policy // zero: the daemon's own user only

	// Audit gets the audit lines; they should be written whatever Log leaves out. Nil: Log gets
	// them.
	Audit *zap.Logger
	// AuditLost is how many lines of Audit could not be written; nil: none is known of.
	AuditLost func() int
	// PolicyFor is what the administrator allows the sessions of a user that begin now; nil:
	// everything.
	PolicyFor func(uid uint32) policy.Policy

	// WorkerConfig is handed to each worker as its configuration.
	WorkerConfig json.RawMessage

	// Confine has workers confine themselves (see package confine).
	Confine bool
	// Readable are the folders and files that confined workers may read besides the system's;
	// empty: all.
	Readable []string

	// KeyLog, if not nil, becomes the descriptor handoff.KeyLogFD of each worker.
	KeyLog *os.File

	// RequireOpenSSL and RequireConfinement have Run fail when the first worker has no library,
	// or is not confined by all measures.
	RequireOpenSSL, RequireConfinement bool

	// Shared workers serve many sessions each; others serve one and exit.
	Shared bool
	// Warm is the number of shared workers, or else of workers that wait for a
	// session of the daemon's own user.
	Warm int
	// WarmOthers is the number of workers that wait to be told which other user they serve.
	WarmOthers        int
	MaxSessions       int // at the same time
	MaxSessionsPerUID int // of one user; 0: as many

	// MaxMemory is what workers are told, by WorkerConfig, of how much memory each may have, in
	// bytes; 0: no limit.
	MaxMemory int64

	// Watchdog is the time within which a worker that has sessions must answer a ping, and a
	// call into the library come back. It is killed if not. 0: never.
	Watchdog time.Duration

	DrainTimeout time.Duration // from the order to stop until open sessions are ended
	IdleExit     time.Duration // without a session, after which Run returns; 0: never
}

// Supervisor runs the daemon. Make it with New and run it once.
type Supervisor struct {
	Config
	started time.Time
	callers *zap.Logger // for lines that a hostile caller could make by the thousand
	levels  sync.Mutex  // held while workers are told of a level, for which nobody waits long

	oom     *oomWatch
	forking forkWatch
	beat    <-chan time.Time // the service manager wants to hear of us; nil: never

	firstReport chan struct{} // closed when the first worker has reported
	wake        chan struct{} // the pool may lack a worker
	idle        chan struct{} // active has become 0
	starting    *turns        // of workers that are being started for one session

	admitting sync.WaitGroup // connections whose fate is being decided
	watching  sync.WaitGroup // workers that are not gone

	mu          sync.Mutex // guards all below, and the fields of workers that say so
	active      int        // connections being admitted, and sessions
	sessions    int
	perUID      map[account]int // sessions by user, of those who have any
	last        uint64          // the highest session number given out
	workers     map[*worker]struct{}
	pool        []*worker         // those that take any session of the daemon's own user, the oldest first
	others      []*worker         // those that wait to be told which other user they serve
	changed     chan struct{}     // closed, and made anew, when pool has grown
	failures    int               // of workers of pool and others in a row
	rows        map[account]row   // by user
	kept        []*worker         // were killed, and have not ended
	library     string            // of the first worker that has reported
	confinement map[string]string // of that worker
	stub        bool              // that worker has no library
	misfit      error             // what its report lacks
	stopping    bool              // Run lets sessions finish
	logLevel    string            // what workers are told; "": what WorkerConfig says
	tally       tally
	saidReady   bool                       // to the service manager
	saidStatus  string                     // to it
	audits      map[account]*audit.Limiter // by user
}

// session is one caller in a worker's hands.
type session struct {
	number uint64
	peer   Peer
	start  time.Time

	// Its owner is who admits the session, until assign; then the goroutine
	// that watches the worker.
	policy policy.Policy // fixed when it began

	place int           // in the worker's page of vitals
	gone  chan struct{} // closed when it is counted out

	ordered bool // an administrator has ended it; guarded by Supervisor.mu

	callerMu sync.Mutex
	caller   int // our copy of the connection, a descriptor; -1: none; guarded by callerMu
}

// New makes a Supervisor. It owns the socket from then on.
func New(cfg Config) *Supervisor {
	if cfg.Audit == nil {
		cfg.Audit = cfg.Log.Named("audit")
	}
	if cfg.AuditLost == nil {
		cfg.AuditLost = func() int { return 0 }
	}
	if cfg.PolicyFor == nil {
		cfg.PolicyFor = func(uint32) policy.Policy { return policy.Policy{} }
	}
	return &Supervisor{
		Config:  cfg,
		started: time.Now(),
		callers: cfg.Log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(c, time.Second, 10, 1000)
		})),
		oom:         watchOOM(),
		firstReport: make(chan struct{}),
		wake:        make(chan struct{}, 1),
		idle:        make(chan struct{}, 1),
		starting:    newTurns(maxStarting, userAccount(uint32(os.Geteuid()))),
		workers:     map[*worker]struct{}{},
		perUID:      map[account]int{},
		rows:        map[account]row{},
		audits:      map[account]*audit.Limiter{},
		changed:     make(chan struct{}),
		tally:       newTally(),
	}
}

// Run serves until ctx is done or there has been no session for IdleExit. Then it
// removes the socket, lets the open sessions finish within DrainTimeout, and ends what is left. It
// ends everything at once when force is closed.
func (s *Supervisor) Run(ctx context.Context, force <-chan struct{}) error {
	life, end := context.WithCancel(context.Background()) // of the supervisor's own waits
	defer end()

	defer s.startHeartbeat()()
	var own sync.WaitGroup
	own.Go(func() { s.fillPool(life) })
	own.Go(func() { s.probe(life) })
	own.Go(func() { s.guardAll(life) })
	if err := s.awaitFit(ctx); err != nil {
		_ = s.Socket.Remove()
		s.Socket.Close()
		end()
		own.Wait()
		s.endWorkers(false, force)
		return err
	}
	accepting := make(chan struct{})
	own.Go(func() { defer close(accepting); s.accept(life) })
	own.Go(func() { s.sayReady(life) })
	s.Log.Info("listening", zap.String("socket", s.Socket.Path))

	why := s.awaitStop(ctx, force)
	s.Log.Info("stopping", zap.String("why", why), zap.Int("sessions", s.count()))
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.sayStopping()
	if err := s.Socket.Remove(); err != nil {
		s.Log.Warn("the socket's file stays", zap.Error(err))
	}
	s.Socket.SetDeadline(time.Unix(1, 0)) // ends accept
	<-accepting
	s.acceptRest(life)
	s.Socket.Close()

	err := s.drain(force)
	end()
	s.admitting.Wait()
	own.Wait()
	s.endWorkers(errors.Is(err, ErrForced), force)
	s.closeAudit()
	s.Log.Info("stopped")
	return err
}

func (s *Supervisor) notify(state string) {
	if err := notify(state); err != nil {
		s.Log.Warn("the service manager cannot be told", zap.String("state", state), zap.Error(err))
	}
}

// awaitStop waits for a reason to stop.
func (s *Supervisor) awaitStop(ctx context.Context, force <-chan struct{}) string {
	var status <-chan time.Time
	if managed() {
		ticker := time.NewTicker(statusEvery)
		defer ticker.Stop()
		status = ticker.C
	}
	quiet := time.NewTimer(s.IdleExit)
	defer quiet.Stop()
	if s.IdleExit == 0 {
		quiet.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return "it was told to"
		case <-force:
			return "it was told to, at once"
		case <-s.idle:
			if s.IdleExit > 0 {
				quiet.Reset(s.IdleExit)
			}
		case <-s.beat:
			s.alive()
		case <-status:
			s.sayStatus()
		case <-quiet.C:
			// If there is a session now, its end starts the wait again.
			if s.count() == 0 {
				return fmt.Sprintf("no session for %v", s.IdleExit)
			}
		}
	}
}

// count is the number of sessions, and of connections that may become one.
func (s *Supervisor) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// drain waits until there is no session left.
func (s *Supervisor) drain(force <-chan struct{}) error {
	limit := time.NewTimer(s.DrainTimeout)
	defer limit.Stop()
	for s.count() > 0 {
		select {
		case <-s.idle:
		case <-s.beat:
			s.alive()
		case <-limit.C:
			return ErrDrainTimeout
		case <-force:
			return ErrForced
		}
	}
	return nil
}

// endWorkers tells all workers to go, or kills them, and waits until they are gone.
func (s *Supervisor) endWorkers(kill bool, force <-chan struct{}) {
	gone := make(chan struct{})
	go func() { defer close(gone); s.watching.Wait() }()

	if kill {
		s.eachWorker(s.stopNow) // before they can go in an orderly way, so that all callers are told the same
	}
	s.eachWorker(s.retire) // which kills what does not go
	if !kill {
		select {
		case <-gone: // within the bounds of each
			return
		case <-force:
		}
	}
	s.eachWorker(s.stopNow)
	select {
	case <-gone:
	case <-time.After(forceTimeout):
		s.Log.Error("workers that were killed have not ended; they are left behind", zap.Int("workers", s.countWorkers()))
	}
}

func (s *Supervisor) countWorkers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.workers)
}

func (s *Supervisor) stopNow(w *worker) {
	s.mu.Lock()
	w.ending = true
	s.mu.Unlock()
	w.kill()
}

func (s *Supervisor) eachWorker(do func(*worker)) {
	s.mu.Lock()
	var all []*worker
	for w := range s.workers {
		all = append(all, w)
	}
	s.mu.Unlock()
	for _, w := range all {
		do(w)
	}
}
