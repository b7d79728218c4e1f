// Package supervisor is the part of tlsd that lives as long as the daemon. The supervisor listens,
// decides which callers may connect, and hands each accepted connection to a worker process. It
// starts the workers, watches them, and ends them. It never loads a TLS library, and it never reads
// a byte from a caller.
//
// # Promises
//
//   - Each connection is served by one worker. The supervisor keeps a copy of the connection's
//     descriptor, and never reads from the copy. It closes the copy when the worker has reported
//     the session's end, or has died.
//   - When a worker dies, the supervisor tells each caller of that worker the reason, in one line
//     of the protocol. It sends no line to a caller that may have received only a part of a
//     message. In any case it then ends the callers' connections. Other callers notice nothing.
//   - If the daemon runs as root, a worker acts with the caller's user and groups. The worker
//     starts as root. So the caller's user cannot stop it between fork(2) and execve(2), while it
//     shares the supervisor's memory. Later it becomes the caller's user, and keeps this user from
//     tracing it (package confine).
//   - A caller that is refused gets the reason, in one line of the protocol.
//   - A session keeps the policy that its user has when the session begins. The worker applies the
//     policy.
//   - The workers and callers of one user do not delay the start of another user's worker.
//   - After an error of accept(2) the daemon pauses, and tries again.
//   - [Supervisor.Run] returns when all of its goroutines and processes have ended. Every wait has
//     a timeout. If another process (a tracer) keeps a killed worker from ending, Run leaves that
//     worker behind. If the daemon is killed, its workers end by themselves.
//
// A worker talks to the supervisor over a channel (package handoff). The program (cmd/tlsd) decides
// what a worker does with a connection.
package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsd/internal/policy"
)

// Config has the settings of a Supervisor. A field is required unless its comment says otherwise.
type Config struct {
	Log    *zap.Logger
	Socket *Socket
	Policy Policy // zero: the daemon's own user only

	// Audit gets the audit lines. It should write them at every log level. Nil: Log gets them.
	Audit *zap.Logger
	// AuditLost gives the number of lines of Audit that could not be written. Nil: 0.
	AuditLost func() int
	// PolicyFor gives the policy that a user has now. It is called when a session begins. Nil:
	// everything is allowed.
	PolicyFor func(uid uint32) policy.Policy

	// WorkerConfig is the configuration of each worker.
	WorkerConfig json.RawMessage

	// Confine makes workers confine themselves (see package confine).
	Confine bool
	// Readable lists the folders and files that confined workers may read, besides the
	// system's. Empty: workers may read everything.
	Readable []string

	// KeyLog, if not nil, becomes the descriptor handoff.KeyLogFD of each worker.
	KeyLog *os.File

	// RequireOpenSSL makes Run fail if the first worker has no library. RequireConfinement
	// makes Run fail if the first worker reports that a measure of confinement is not in force.
	RequireOpenSSL, RequireConfinement bool

	// Shared makes each worker of the daemon's own user serve many sessions. Any other worker
	// serves one session and exits.
	Shared bool
	// Warm is the number of workers in the pool. If Shared is true, these are the shared
	// workers. Otherwise they are the spare workers for the daemon's own user.
	Warm int
	// WarmOthers is the number of spare workers for other users. Such a worker learns its user
	// when it gets a session.
	WarmOthers        int
	MaxSessions       int // at the same time
	MaxSessionsPerUID int // of one user at the same time; 0: MaxSessions

	// MaxMemory is the memory limit of a worker in bytes, or 0 for no limit. WorkerConfig must
	// have the same value: the worker sets the limit, and the supervisor names it after a
	// death.
	MaxMemory int64

	// Watchdog limits the time until a worker with sessions answers a ping, and the time of one
	// call into the library. A worker that takes longer is killed. 0: no limit.
	Watchdog time.Duration

	DrainTimeout time.Duration // how long open sessions may go on after the order to stop
	IdleExit     time.Duration // Run returns after this time without a session; 0: never
}

// Supervisor runs the daemon. Make it with New and run it once.
type Supervisor struct {
	Config
	started    time.Time
	limitedLog *zap.Logger // drops lines above a rate; a hostile caller could cause thousands
	levels     sync.Mutex  // lets calls of SetLogLevel run one after the other

	answerTime time.Duration // the limit of the wait for workers' answers (view.go)

	oom     *oomWatch
	forking forkWatch
	// watchdogTick ticks when a sign of life to the service manager is due (heartbeat.go). It
	// is nil if the service manager expects none.
	watchdogTick <-chan time.Time

	firstReport chan struct{} // closed when the first worker has reported
	wake        chan struct{} // wakes fillPool: the pool may lack a worker
	idle        chan struct{} // gets a value when active becomes 0
	starts      *startQueue   // orders the starts of workers that are not shared

	admitting sync.WaitGroup // running calls of admit
	watching  sync.WaitGroup // running calls of watch, one for each worker

	mu            sync.Mutex // guards all below, and fields of worker and session that say so
	active        int        // connections in admit, and sessions
	sessions      int
	perUID        map[account]int // sessions by account, for accounts that have any
	last          uint64          // the number of the newest session
	workers       map[*worker]struct{}
	pool          []*worker          // workers for the daemon's own user, the oldest first
	others        []*worker          // spare workers for other users, the oldest first
	failures      int                // failures in a row (see settled)
	changed       chan struct{}      // closed and replaced when pool grows
	streaks       map[account]streak // deaths in a row, by account (backoff.go)
	unreaped      []*worker          // killed workers whose processes have not ended yet
	library       string             // the library's version; "": no report yet
	confinement   map[string]string  // measures of package confine, as workers report them
	stub          bool               // the newest report names no library
	misfit        error              // the result of fit for the first report
	stopping      bool               // Run is draining
	logLevel      string             // the workers' log level; "": the level in WorkerConfig
	tally         tally
	readySent     bool   // the service manager was told that the daemon is ready
	statusSent    string // the status that was sent to the service manager
	auditLimiters limiters
	sessionLines  limiters // limit the lines about sessions
	workerEntries limiters // limit the log entries of workers that are not shared
}

// session is one caller's connection, which a worker serves.
type session struct {
	number uint64
	peer   Peer
	start  time.Time

	policy policy.Policy // fixed when the session begins
	// unlogged says that the log has no lines about the session. It is atomic, because a
	// hostile worker may report the end of a session while logStart still sets it.
	unlogged atomic.Bool

	slot int           // the session's slot in the worker's page of vitals
	gone chan struct{} // closed when the session is no longer counted

	ordered bool // an administrator has ordered its end; guarded by Supervisor.mu

	callerMu sync.Mutex
	callerFD int // the supervisor's copy of the connection; -1: none; guarded by callerMu
}

// New makes a Supervisor, which owns the socket of cfg from now on.
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
		limitedLog: cfg.Log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(c, time.Second, 10, 1000)
		})),
		answerTime:    answerTime,
		oom:           watchOOM(),
		firstReport:   make(chan struct{}),
		wake:          make(chan struct{}, 1),
		idle:          make(chan struct{}, 1),
		starts:        newStartQueue(maxStarting, userAccount(uint32(os.Geteuid()))),
		workers:       map[*worker]struct{}{},
		perUID:        map[account]int{},
		streaks:       map[account]streak{},
		auditLimiters: limiters{},
		changed:       make(chan struct{}),
		tally:         newTally(),
	}
}

// Run serves until ctx is done, or until IdleExit has passed without a session. Then Run removes
// the socket and drains: open sessions may finish within DrainTimeout. After that Run ends the
// sessions that remain. If force is closed, Run ends everything at once. The error is nil,
// ErrDrainTimeout or ErrForced, or wraps ErrUnfit.
func (s *Supervisor) Run(ctx context.Context, force <-chan struct{}) error {
	life, end := context.WithCancel(context.Background()) // bounds the supervisor's own waits
	defer end()

	defer s.startHeartbeat()()
	var own sync.WaitGroup
	own.Go(func() { s.fillPool(life) })
	own.Go(func() { s.probe(life) })
	own.Go(func() { s.runWatchdog(life) })
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
	own.Go(func() { s.notifyReady(life) })
	s.Log.Info("listening", zap.String("socket", s.Socket.Path))

	why := s.awaitStop(ctx, force)
	s.Log.Info("stopping", zap.String("why", why), zap.Int("sessions", s.count()))
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.notifyStopping()
	if err := s.Socket.Remove(); err != nil {
		s.Log.Warn("the socket's file cannot be removed", zap.Error(err))
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
	s.closeSessionLines()
	s.Log.Info("stopped")
	return err
}

func (s *Supervisor) notify(state string) {
	if err := notify(state); err != nil {
		s.Log.Warn("the service manager cannot be told", zap.String("state", state),
			zap.Error(err))
	}
}
