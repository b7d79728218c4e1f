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

// The watchdog ends workers that hang while they have sessions. There are two ways to
// hang, and it looks for both four times within the bound:
//
//   - The worker does not answer a ping: the process is stopped, or its runtime is stuck.
//   - A thread is in the library and does not come back. Other threads can still answer pings, so
//     this is seen in the page of vitals.
//
// A worker that rests, with no call in flight and no thread in the library, is left to rest, since
// hundreds of them that are pinged keep the machine busy. Once within the bound the kernel is asked
// whether it is stopped, and pings are further apart. One that was stopped while it rested is ended
// within twice the bound, and one whose runtime is stuck within some times the bound.
//
// A worker that is not ready in time hangs, too. It all counts looks, not time, so that a machine
// that was asleep, or a supervisor that was stopped, does not cost a session.
const looks = 4

// restingPing is after how many looks a worker that rests is pinged.
const restingPing = 6 * looks

// abortGrace is the time that a worker has to write down, on SIGABRT, where it hangs.
const abortGrace = time.Second

// awaitReady kills a worker that is not ready within startTimeout, from when it was engaged.
func (s *Supervisor) awaitReady(w *worker, stop <-chan struct{}, log *zap.Logger) {
	select {
	case <-w.engaged:
	case <-stop:
		return
	}
	tick := time.NewTicker(startTimeout / looks)
	defer tick.Stop()
	for range looks {
		select {
		case <-tick.C:
		case <-w.ready:
			return
		case <-stop:
			return
		}
	}
	select {
	case <-w.ready: // the last look may have found both
	default:
		log.Error("worker is not ready in time, and is killed", zap.Duration("after", startTimeout))
		s.mu.Lock()
		w.deathBy = byStart
		w.killed = fmt.Sprintf("was killed because it was not ready within %v", startTimeout)
		s.mu.Unlock()
		w.kill()
	}
}

// A guard is what the watchdog knows of a worker.
type guard struct {
	pinged, missed uint64
	rests          int          // looks in a row at which the worker has rested, since the last ping
	stays          map[int]stay // of its threads in the library
}

type stay struct {
	turn  uint32
	times int // looks that have found it
}

// guardAll watches over all workers until life is done.
func (s *Supervisor) guardAll(life context.Context) {
	if s.Watchdog == 0 {
		return
	}
	tick := time.NewTicker(s.Watchdog / looks)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-life.Done():
			return
		}
		s.oom.look()
		s.eachWorker(s.lookAfter)
	}
}

// lookAfter is one look at a worker. Only guardAll calls it.
func (s *Supervisor) lookAfter(w *worker) {
	if !w.isReady() {
		return
	}
	g := &w.guard
	busy, active, ponged, inside := s.observe(w)
	if !busy {
		g.missed = 0
		clear(g.stays)
		return
	}
	g.rests++
	switch {
	case g.pinged > ponged:
		if g.missed++; g.missed >= looks {
			s.putDown(w, fmt.Sprintf("was killed because it did not answer for %v", s.Watchdog))
			return
		}
	case active || g.rests >= restingPing || g.rests%looks == 0 && !runs(w.pid):
		g.missed, g.rests = 0, 0
		g.pinged++
		_ = w.channel.TrySend(handoff.ToWorker{Ping: g.pinged}) // if it cannot be sent, it is not answered
	}
	for thread := range g.stays {
		if _, ok := inside[thread]; !ok {
			delete(g.stays, thread)
		}
	}
	for thread, in := range inside {
		if g.stays[thread].turn != in.Turn {
			g.stays[thread] = stay{turn: in.Turn}
			continue
		}
		if g.stays[thread] = (stay{in.Turn, g.stays[thread].times + 1}); g.stays[thread].times >= looks {
			s.putDown(w, fmt.Sprintf("was killed because it did not come back from the library for %v", s.Watchdog))
			return
		}
	}
}

// observe takes what lookAfter judges: whether the worker is to be looked after, whether it works,
// the last ping that it has answered, and its threads in the library. Its page is there as long as
// it is one of s.workers.
func (s *Supervisor) observe(w *worker) (busy, active bool, ponged uint64, inside map[int]vitals.Stay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.workers[w]; !there || len(w.sessions) == 0 || w.ending || w.killed != "" {
		return false, false, 0, nil
	}
	inside = w.page.Inside()
	active = len(inside) > 0
	for _, sess := range w.sessions {
		if place, err := w.page.Session(sess.place); err == nil {
			method, _ := place.InFlight()
			active = active || method != ""
		}
	}
	return true, active, w.ponged, inside
}

// runs says whether a process is certain not to be stopped (proc_pid_stat(5)).
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(text, ')')
	return err == nil && i >= 0 && i+2 < len(text) && text[i+2] != 'T' && text[i+2] != 't'
}

// putDown ends a worker that hangs: with SIGABRT, so that it writes down where,
// and then with SIGKILL.
func (s *Supervisor) putDown(w *worker, why string) {
	s.mu.Lock()
	w.deathBy, w.killed = byWatchdog, why
	s.mu.Unlock()
	s.Log.Error("worker hangs", zap.Int("worker", w.pid), zap.String("why", why))
	_ = w.process.Process.Signal(unix.SIGABRT)
	time.AfterFunc(abortGrace, w.kill)
}
