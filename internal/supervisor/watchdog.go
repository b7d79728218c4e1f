package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tlsd/internal/handoff"
	"tlsd/internal/vitals"
)

// The watchdog ends workers that hang while they have sessions. Four times within its timeout
// (Config.Watchdog), it checks whether a worker hangs in one of two ways:
//
//   - The worker does not answer a ping: the process is stopped, or its Go runtime is stuck.
//   - A thread is in the library and does not return. Other threads may still answer pings. So the
//     watchdog sees this only in the page of vitals.
//
// A worker is idle if it has no call in flight and no thread in the library. Pings to hundreds of
// idle workers would keep the machine busy, so an idle worker gets a ping only every 6 timeouts.
// Once in each timeout the watchdog asks the kernel whether an idle worker is stopped, and if so,
// sends a ping. A worker that stays stopped does not answer the ping. So a stopped idle worker is
// ended within 2 timeouts, and an idle worker with a stuck runtime within about 7.
//
// awaitReady ends a worker that is not ready in time. The watchdog and awaitReady count checks, and
// do not measure the time. So no worker is ended because the machine was suspended, or the
// supervisor was stopped.
const checksPerTimeout = 4

// idlePingChecks is the number of checks between two pings of an idle worker.
const idlePingChecks = 6 * checksPerTimeout

// abortGrace is the time from SIGABRT to SIGKILL. On SIGABRT a worker writes a dump.
const abortGrace = time.Second

// awaitReady kills a worker that is not ready within startTimeout after it was engaged.
func (s *Supervisor) awaitReady(w *worker, stop <-chan struct{}, log *zap.Logger) {
	select {
	case <-w.engaged:
	case <-stop:
		return
	}
	tick := time.NewTicker(startTimeout / checksPerTimeout)
	defer tick.Stop()
	for range checksPerTimeout {
		select {
		case <-tick.C:
		case <-w.ready:
			return
		case <-stop:
			return
		}
	}
	select {
	case <-w.ready: // select may have taken tick.C although w.ready was closed, too
	default:
		log.Error("worker is not ready in time, and is killed",
			zap.Duration("after", startTimeout))
		s.mu.Lock()
		w.deathCause = byStart
		w.killReason = fmt.Sprintf("was killed because it was not ready within %v",
			startTimeout)
		s.mu.Unlock()
		w.kill()
	}
}

// A watchState has what the watchdog knows about a worker. Pings are numbered from 1.
type watchState struct {
	lastPing        uint64       // the number of the newest ping
	missedChecks    uint64       // checks in a row that found this ping not answered
	checksSincePing int          // checks since this ping
	stays           map[int]stay // the threads in the library, by their numbers
}

// A stay is a thread's time in the library, as the watchdog has seen it.
type stay struct {
	sequence uint32 // see vitals.Stay
	seen     int    // later checks that found the same stay
}

// runWatchdog checks all workers at each tick, until the context life is done. It also refreshes
// s.oom.
func (s *Supervisor) runWatchdog(life context.Context) {
	if s.Watchdog == 0 {
		return
	}
	tick := time.NewTicker(s.Watchdog / checksPerTimeout)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-life.Done():
			return
		}
		s.oom.refresh()
		s.eachWorker(s.check)
	}
}

// check checks one worker. Only runWatchdog calls it.
func (s *Supervisor) check(w *worker) {
	if !w.isReady() {
		return
	}
	g := &w.watchState
	watched, active, lastPong, inside := s.observe(w)
	if !watched {
		g.missedChecks = 0
		clear(g.stays)
		return
	}
	g.checksSincePing++
	switch {
	case g.lastPing > lastPong:
		if g.missedChecks++; g.missedChecks >= checksPerTimeout {
			s.killHung(w, "did not answer")
			return
		}
	case active || g.checksSincePing >= idlePingChecks ||
		g.checksSincePing%checksPerTimeout == 0 && !isRunning(w.pid):
		g.missedChecks, g.checksSincePing = 0, 0
		g.lastPing++
		// A ping that cannot be sent gets no answer, and is noticed like a hang.
		_ = w.channel.TrySend(handoff.ToWorker{Ping: g.lastPing})
	}
	for thread := range g.stays {
		if _, ok := inside[thread]; !ok {
			delete(g.stays, thread)
		}
	}
	for thread, in := range inside {
		known := g.stays[thread]
		if known.sequence != in.Sequence {
			g.stays[thread] = stay{sequence: in.Sequence}
			continue
		}
		known.seen++
		g.stays[thread] = known
		if known.seen >= checksPerTimeout {
			s.killHung(w, "did not come back from the library")
			return
		}
	}
}

// observe reads a worker's state for the method check. The results:
//
//   - watched: the worker has sessions, and was neither told to exit nor killed
//   - active: the worker is not idle
//   - lastPong: the number of the newest answered ping
//   - inside: the threads in the library
//
// The worker's page is open as long as s.workers has the worker.
func (s *Supervisor) observe(w *worker) (watched, active bool, lastPong uint64,
	inside map[int]vitals.Stay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.workers[w]; !there || len(w.sessions) == 0 || w.ending ||
		w.killReason != "" {
		return false, false, 0, nil
	}
	inside = w.page.Inside()
	active = len(inside) > 0
	for _, sess := range w.sessions {
		if notes, err := w.page.Session(sess.slot); err == nil {
			method, _ := notes.InFlight()
			active = active || method != ""
		}
	}
	return true, active, w.lastPong, inside
}

// isRunning returns false if a process is stopped (T, or t for a stop by a tracer:
// proc_pid_stat(5)). On a system without /proc/PID/stat it always returns false, so there an idle
// worker gets a ping in each timeout.
func isRunning(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(text, ')')
	return err == nil && i >= 0 && i+2 < len(text) && text[i+2] != 'T' && text[i+2] != 't'
}

// killHung ends a worker that hangs. The parameter symptom completes the text "was killed because
// it …". SIGABRT makes the worker write a dump. SIGKILL follows after abortGrace.
func (s *Supervisor) killHung(w *worker, symptom string) {
	why := fmt.Sprintf("was killed because it %s for %v", symptom, s.Watchdog)
	s.mu.Lock()
	w.deathCause, w.killReason = byWatchdog, why
	s.mu.Unlock()
	s.Log.Error("worker hangs", zap.Int("worker", w.pid), zap.String("why", why))
	_ = w.process.Process.Signal(unix.SIGABRT)
	time.AfterFunc(abortGrace, w.kill)
}
