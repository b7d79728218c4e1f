package supervisor

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
	"tlsd/internal/plain"
	"tlsd/internal/vitals"
)

// A worker is a process that serves sessions. Its life:
//
//	start ─▶ waiting ──engage──▶ starting ──Ready──▶ ready ─┬─ it exits, or crashes ───▶ gone
//	                                │                       └─ its channel is closed ──▶ gone
//	                                └─ not ready within startTimeout: killed ──────────▶ gone
//
// To engage a worker is to send it its configuration. A worker for the daemon's own user is engaged
// at once. A spare worker for other users is engaged when it gets a session. Until then it runs as
// root, and then it becomes the user of its session.
//
// Only the goroutine of watch receives from the worker.
type worker struct {
	pid     int
	process *exec.Cmd
	channel *handoff.Conn
	page    *vitals.Page // watch closes it as its last step
	started time.Time

	engaged     chan struct{} // closed when the configuration is sent
	ready       chan struct{} // closed when report is set
	libraryFile os.FileInfo   // the library's file; set before ready is closed; nil: not known
	otherUser   bool          // it is for another user than the daemon's, so its report may lie
	report      handoff.Ready // set before ready is closed
	gone        chan struct{} // closed when the process is reaped, or never ends (reap.go)
	cause       string        // such as "died of SIGSEGV"; set before gone is closed
	end         exit          // how the process has ended; set before gone is closed

	killedAt   atomic.Int64 // the time of the first kill, in ns since 1970; 0: not killed
	watchState watchState   // used by runWatchdog only

	// Guarded by Supervisor.mu.
	startDone  func()              // called when the worker is ready or gone
	sessions   map[uint64]*session // by number; nil when the worker is gone
	load       int                 // sessions that the worker has or is about to get
	single     bool                // serves one session, and exits when this session ends
	user       *account            // the account of its session, if single; nil before assign
	lastPong   uint64              // the number of the newest answered ping
	slots      slots               // the slots of its page of vitals
	ending     bool                // told to exit, or killed by End() or stopNow()
	draining   bool                // gets no more sessions, and exits after the open ones
	queries    map[uint64]*query   // open questions, by session; at most 2 for each slot
	deathCause string              // the metrics' label "cause"; set with killReason
	claimed    claims              // the worker's counters, as last read
	killReason string              // why tlsd has ended it, a text for callers; else ""
}

const (
	// startTimeout limits the time from engage to the worker's Ready. It is also the limit for
	// the start of the process, before engage: a longer start counts as hanging (heartbeat.go).
	startTimeout = 10 * time.Second
	// endTimeout limits the time from the order to exit to the worker's end. After that the
	// supervisor kills the worker.
	endTimeout = 5 * time.Second

	// messageBurst and messageRate (messages a second) limit what a worker may send. Each
	// session that the worker may have adds a tenth of messageBurst and a fifth of messageRate.
	// A worker that keeps its own limits (see cmd/tlsd) sends far fewer.
	messageBurst = 1000
	messageRate  = 100
	// longestReason limits a worker's text about why it cannot serve or why a session has
	// ended, in bytes.
	longestReason = 1 << 10
)

// watch follows the worker from its start to its end. Before the call, add the worker to s.workers,
// and add 1 to s.watching.
func (s *Supervisor) watch(w *worker, stderr io.ReadCloser) {
	defer s.watching.Done()
	log := s.Log.With(zap.Int("worker", w.pid))

	stderrHead := make(chan string, 1)
	go func() { stderrHead <- relay(stderr, log.Named("worker"), s.sharing(w)) }()
	stop := make(chan struct{})
	var guarding sync.WaitGroup
	guarding.Go(func() { s.awaitReady(w, stop, log) })
	defer s.finishStart(w)
	err := s.receiveMessages(w)
	close(stop)
	guarding.Wait()
	if broken := (protocolError{}); errors.As(err, &broken) {
		log.Error("worker breaks the rules of its channel, and is killed", zap.Error(err))
		s.mu.Lock()
		w.deathCause = byRules
		w.killReason = "was killed because it broke the rules of its channel to tlsd"
		s.mu.Unlock()
		w.kill()
	}
	w.channel.Close()
	w.end = awaitEnd(w)

	// Another process may have the other end of the pipe open. So relay must not wait for the
	// end of the text without a timeout.
	if p, ok := stderr.(*os.File); ok {
		p.SetReadDeadline(time.Now().Add(time.Second))
	}
	head := <-stderrHead
	stderr.Close()
	// tellCallers comes before reap. So when the process vanishes, its callers have been told
	// already.
	death := s.tellCallers(w, w.end, head)
	w.cause = death.cause
	if w.end.stuck {
		leaveBehind(w, log)
	}
	s.reap(w)
	close(w.gone)
	s.workerGone(w, log, head, death)
	w.page.Close()
}

// finishStart tells the queue of starts that the worker's start is over. Only the first call has an
// effect.
func (s *Supervisor) finishStart(w *worker) {
	s.mu.Lock()
	end := w.startDone
	s.mu.Unlock()
	end()
}

// A protocolError says how a worker has broken the rules of its channel.
type protocolError struct{ error }

// receiveMessages receives from the worker until the channel ends, and returns the error of the
// end. After an Unfit it returns io.EOF at once. If the worker sends a message that it must not
// send, or too many messages, receiveMessages returns a protocolError.
func (s *Supervisor) receiveMessages(w *worker) error {
	limiter := audit.NewLimiter(messageBurst+messageBurst/10*w.slots.count,
		messageRate+messageRate/5*w.slots.count)
	for {
		var msg handoff.FromWorker
		switch err := w.channel.Receive(&msg); {
		case errors.Is(err, handoff.ErrMessage):
			return protocolError{err}
		case err != nil: // the channel has ended
			return err
		}
		if msg.Described != nil { // not limited, because the supervisor has asked for it
			if !s.queryAnswered(w, msg.Described) {
				return protocolError{errors.New("an answer without a question")}
			}
			continue
		}
		if _, ok := limiter.Take(time.Now(), 0); !ok {
			return protocolError{errors.New("too many messages")}
		}
		switch {
		case msg.Ready != nil:
			if w.isReady() {
				return protocolError{errors.New("a second Ready")}
			}
			w.report = msg.Ready.Clean()
			if w.report.Path != "" && !w.otherUser {
				// If Stat fails, the worker never counts as outdated (renew.go).
				w.libraryFile, _ = os.Stat(w.report.Path)
			}
			close(w.ready)
			s.finishStart(w)
			s.recordReport(w)
		case msg.Unfit != "":
			s.mu.Lock()
			w.deathCause = byStart
			w.killReason = "could not serve: " + plain.Text(msg.Unfit, longestReason)
			s.mu.Unlock()
			return io.EOF
		case msg.Ended != nil:
			s.sessionEnded(w, msg.Ended)
		case msg.Audit != nil:
			s.auditReported(w, msg.Audit)
		case msg.Pong != 0:
			s.mu.Lock()
			w.lastPong = msg.Pong
			s.mu.Unlock()
		default:
			return protocolError{errors.New("a message without content")}
		}
	}
}

// sendSession sends the worker a session and its connection.
func (w *worker) sendSession(sess *session, conn *net.UnixConn) error {
	return w.channel.Send(handoff.ToWorker{Session: &handoff.Session{
		Number: sess.number, Slot: sess.slot, UID: sess.peer.UID, PID: sess.peer.PID,
		Policy: &sess.policy,
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

// kill kills the process. After reapTimeout it also closes the channel, because watch would
// otherwise wait for the channel of a process that does not end.
func (w *worker) kill() {
	_ = w.process.Process.Kill()
	if w.killedAt.CompareAndSwap(0, time.Now().UnixNano()) {
		time.AfterFunc(reapTimeout, func() { w.channel.Close() })
	}
}
