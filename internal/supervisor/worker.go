package supervisor

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tlsd/internal/audit"
	"tlsd/internal/confine"
	"tlsd/internal/handoff"
	"tlsd/internal/plain"
	"tlsd/internal/vitals"
)

// A worker is a process that serves sessions. Its life:
//
//	start ─▶ waiting ──engage──▶ starting ──Ready──▶ ready ─┬─ it exits, or crashes ──────────▶ gone
//	                                │                       └─ end: its channel is closed ────▶ gone
//	                                └─ not ready within startTimeout: killed ─────────────────▶ gone
//
// One that serves the daemon's own user is engaged at once. One for another user is root's while it
// waits, and becomes that user's when it is engaged.
//
// Its goroutine, watch, is the only one that receives from it and waits for it.
type worker struct {
	pid     int
	process *exec.Cmd
	channel *handoff.Conn
	page    *vitals.Page // watch takes it away, after gone
	started time.Time

	engaged     chan struct{} // closed when its configuration is sent
	ready       chan struct{} // closed when report is there
	libraryFile os.FileInfo   // of a worker that is ready, the library that it has loaded; nil: not known
	other       bool          // it is another user's, or will be: no file that it names is looked at
	report      handoff.Ready // of a worker that is ready
	gone        chan struct{} // closed when the process has been waited for
	cause       string        // of its end, of a worker that is gone: "died of SIGSEGV"
	end         end           // of a worker that is gone

	killedAt atomic.Int64 // when it was first killed, in nanoseconds since 1970; 0: it was not
	guard    guard        // only guardAll's

	// Guarded by Supervisor.mu.
	turn     func()              // ends the turn of its start
	sessions map[uint64]*session // in its hands; nil when it is gone
	load     int                 // sessions that it has or is about to get
	own      bool                // it is for one session alone, and goes when that ends
	ponged   uint64              // the number of the last ping that it has answered
	places   places              // those of its page of vitals
	ending   bool                // it was told to go
	outgoing bool                // it gets no more sessions, and goes with its last
	asks     map[uint64]*ask     // questions that are not answered, by session; at most twice its places
	deathBy  string              // the kind of killed, as the metrics have it
	claimed  claims              // what it has said of its counters
	killed   string              // why the supervisor has killed it, for its callers to read; "" if it has not
}

const (
	// startTimeout bounds the time from the start of a worker to its Ready.
	startTimeout = 10 * time.Second
	// endTimeout bounds the time that a worker has to go when it is told to. Then
	// it is killed.
	endTimeout = 5 * time.Second

	// messageBurst and messageRate, a second, bound the messages of a worker, with a fifth and
	// a tenth more for each session that it may have. One that keeps its own limits (see
	// cmd/tlsd) has far fewer.
	messageBurst = 1000
	messageRate  = 100
	// longestReason bounds the text why a worker cannot serve, in bytes.
	longestReason = 1 << 10
)

// start makes a worker process, for the daemon's own user or to become another's. It has to be
// engaged, and watch has to be run.
//
// The process has the daemon's user, for between fork(2) and execve(2) it shares the daemon's
// memory: a user who could stop it there would stop the daemon.
func (s *Supervisor) start(other bool) (*worker, io.ReadCloser, error) {
	channel, theirs, err := handoff.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	sessions := 1
	if s.Shared && !other {
		sessions = s.MaxSessions
	}
	page, pageFile, err := vitals.New(sessions)
	if err != nil {
		channel.Close()
		return nil, nil, err
	}
	defer pageFile.Close()
	stderr, write, err := os.Pipe()
	if err != nil {
		channel.Close()
		page.Close()
		return nil, nil, err
	}
	defer write.Close()

	cmd := s.workerCommand(other, write, theirs, pageFile)
	err = s.forking.during(func() error { return withTimerSlack(timerSlack, cmd.Start) })
	if err != nil {
		channel.Close()
		page.Close()
		stderr.Close()
		return nil, nil, err
	}
	return &worker{
		pid:      cmd.Process.Pid,
		process:  cmd,
		channel:  channel,
		other:    other,
		page:     page,
		started:  time.Now(),
		engaged:  make(chan struct{}),
		ready:    make(chan struct{}),
		gone:     make(chan struct{}),
		guard:    guard{stays: map[int]stay{}},
		turn:     func() {},
		sessions: map[uint64]*session{},
		asks:     map[uint64]*ask{},
		places:   places{most: sessions},
	}, stderr, nil
}

// workerCommand is the process of a worker: its standard error, and the files that become
// handoff.FD and vitals.FD.
func (s *Supervisor) workerCommand(other bool, stderr, channel, page *os.File) *exec.Cmd {
	cmd := &exec.Cmd{
		Path:       thisProgram(),
		Args:       []string{handoff.Arg0},
		Env:        workerEnv(os.Environ()),
		Dir:        "/",
		Stderr:     stderr,
		ExtraFiles: []*os.File{channel, page},
		// Not reached by the terminal's Ctrl-C, nor able to ask for a pass
		// phrase on it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if s.KeyLog != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.KeyLog)
	}
	if s.Confine {
		ask := confine.EnvAsk
		if other {
			ask = confine.EnvAskOther
		}
		cmd.Env = append(cmd.Env, confine.EnvName+"="+ask)
		if len(s.Readable) > 0 {
			cmd.Env = append(cmd.Env, confine.EnvReadable+"="+strings.Join(s.Readable, string(os.PathListSeparator)))
		}
	}
	return cmd
}

// thisProgram is the path of the program that runs: on Linux this very one, even if its file has
// been replaced.
func thisProgram() string {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe"
	}
	path, _ := os.Executable() // without a path the start of the worker fails
	return path
}

// engage tells a worker whom it serves, nil being the daemon's own user. It is called once.
func (s *Supervisor) engage(w *worker, as *confine.Identity) {
	err := w.channel.Send(handoff.ToWorker{Config: s.WorkerConfig, As: as}, nil)
	close(w.engaged) // not before: the configuration is the first message
	// SetLogLevel may come between the look at the level and its sending.
	for told, level := "", s.level(); err == nil && level != told; level = s.level() {
		err = w.channel.Send(handoff.ToWorker{LogLevel: level}, nil)
		told = level
	}
	if err != nil {
		w.kill() // what has become of it, watch sees
	}
}

// workerEnv chooses what a worker gets of the daemon's environment: what finds
// and sets up libraries, OpenSSL among them, the resolver and the Go runtime. SSLKEYLOGFILE is
// not part of it: it would make some builds of OpenSSL write down session keys.
func workerEnv(env []string) []string {
	keep := []string{
		"LD_LIBRARY_PATH", "LD_PRELOAD", "OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"LANG", "TZ", "LOCALDOMAIN", "RES_OPTIONS", "GODEBUG", "GOMAXPROCS", "GOMEMLIMIT", "GOGC", "GOCOVERDIR",
		"MALLOC_ARENA_MAX",
	}
	// The C library would make its threads a heap each, so that many connections, whose memory
	// comes from one and the other, need a tenth more (mallopt(3), M_ARENA_MAX). Of variables
	// of one name the last counts.
	out := []string{"MALLOC_ARENA_MAX=1"}
	for _, e := range env {
		for _, name := range keep {
			if strings.HasPrefix(e, name+"=") {
				out = append(out, e)
			}
		}
	}
	return out
}

// watch follows the worker from its start to its end. The caller has added it
// to s.workers.
func (s *Supervisor) watch(w *worker, stderr io.ReadCloser) {
	defer s.watching.Done()
	log := s.Log.With(zap.Int("worker", w.pid))

	noise := make(chan string, 1)
	go func() { noise <- relay(stderr, log.Named("worker")) }()
	stop := make(chan struct{})
	var guarding sync.WaitGroup
	guarding.Go(func() { s.awaitReady(w, stop, log) })
	defer s.endTurn(w)
	err := s.converse(w)
	close(stop)
	guarding.Wait()
	if broken := (brokenError{}); errors.As(err, &broken) {
		log.Error("worker breaks the rules of its channel, and is killed", zap.Error(err))
		s.mu.Lock()
		w.deathBy = byRules
		w.killed = "was killed because it broke the rules of its channel to tlsd"
		s.mu.Unlock()
		w.kill()
	}
	w.channel.Close()
	w.end = awaitEnd(w)

	// Whoever else might have the pipe open has no hold on us.
	if p, ok := stderr.(*os.File); ok {
		p.SetReadDeadline(time.Now().Add(time.Second))
	}
	head := <-noise
	stderr.Close()
	// The callers are told first: who sees that the process is gone can rely on it
	// that they know.
	last := s.farewell(w, w.end, head)
	w.cause = last.cause
	if w.end.kept {
		leaveBehind(w, log)
	}
	s.bury(w)
	close(w.gone)
	s.buried(w, log, head, last)
	w.page.Close()
}

// endTurn ends the turn of the worker's start, if it has one that has not ended.
func (s *Supervisor) endTurn(w *worker) {
	s.mu.Lock()
	end := w.turn
	s.mu.Unlock()
	end()
}

// A brokenError is a worker's breach of the rules of its channel.
type brokenError struct{ error }

// converse receives from the worker until its channel ends, and returns why. A worker that says
// what it must not say, or too much, is broken.
func (s *Supervisor) converse(w *worker) error {
	limiter := audit.NewLimiter(messageBurst+messageBurst/10*w.places.most, messageRate+messageRate/5*w.places.most)
	for {
		var msg handoff.FromWorker
		switch err := w.channel.Receive(&msg); {
		case errors.Is(err, handoff.ErrMessage):
			return brokenError{err}
		case err != nil: // the end, whoever has brought it about
			return err
		}
		if msg.Described != nil { // it does not count: for each one there was a question
			if !s.answered(w, msg.Described) {
				return brokenError{errors.New("it describes a session unasked")}
			}
			continue
		}
		if _, ok := limiter.Take(time.Now(), 0); !ok {
			return brokenError{errors.New("too many messages")}
		}
		switch {
		case msg.Ready != nil:
			if w.isReady() {
				return brokenError{errors.New("it said a second time that it is ready")}
			}
			w.report = msg.Ready.Clean()
			if w.report.Path != "" && !w.other {
				w.libraryFile, _ = os.Stat(w.report.Path) // without it the worker does not become outdated
			}
			close(w.ready)
			s.endTurn(w)
			s.introduce(w)
		case msg.Unfit != "":
			s.mu.Lock()
			w.deathBy = byStart
			w.killed = "could not serve: " + plain.Text(msg.Unfit, longestReason)
			s.mu.Unlock()
			return io.EOF
		case msg.Ended != nil:
			s.ended(w, msg.Ended)
		case msg.Audit != nil:
			s.reported(w, msg.Audit)
		case msg.Pong != 0:
			s.mu.Lock()
			w.ponged = msg.Pong
			s.mu.Unlock()
		default:
			return brokenError{errors.New("a message without content")}
		}
	}
}

// hand gives the worker a session.
func (w *worker) hand(sess *session, conn *net.UnixConn) error {
	return w.channel.Send(handoff.ToWorker{Session: &handoff.Session{
		Number: sess.number, Place: sess.place, UID: sess.peer.UID, PID: sess.peer.PID, Policy: &sess.policy,
	}}, conn)
}

func (w *worker) isReady() bool {
	select {
	case <-w.ready:
		return true
	default:
		return false
	}
}

// kill ends the process. If it does not end, its channel does, so that nobody waits for it.
func (w *worker) kill() {
	_ = w.process.Process.Kill()
	if w.killedAt.CompareAndSwap(0, time.Now().UnixNano()) {
		time.AfterFunc(reapTimeout, func() { w.channel.Close() })
	}
}
