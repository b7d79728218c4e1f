package supervisor

import (
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tlsd/internal/handoff"
)

// The watchdog ends workers that hang while they have sessions. There are two ways to
// hang, and it looks for both four times within the bound:
//
//   - The worker does not answer a ping: the process is stopped, or its runtime is stuck.
//   - A thread is in the library and does not come back. Other threads can still answer pings, so
//     this is seen in the page of vitals.
//
// A worker that is not ready in time hangs, too. It all counts looks, not time, so that a machine that was asleep, or a supervisor that
// was stopped, does not cost a session.
const looks = 4

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
		w.killed = fmt.Sprintf("was killed because it was not ready within %v", startTimeout)
		s.mu.Unlock()
		w.kill()
	}
}

// guard watches over a worker until stop is closed.
func (s *Supervisor) guard(w *worker, stop <-chan struct{}) {
	tick := time.NewTicker(s.Watchdog / looks)
	defer tick.Stop()
	var pinged, missed uint64
	type stay struct {
		turn  uint32
		times int
	}
	stays := map[int]stay{}
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		s.oom.look()
		s.mu.Lock()
		busy, ponged := len(w.sessions) > 0 && !w.ending, w.ponged
		s.mu.Unlock()
		if !busy {
			missed = 0
			clear(stays)
			continue
		}
		if ponged >= pinged {
			missed = 0
			pinged++
			if err := w.channel.Send(handoff.ToWorker{Ping: pinged}, nil); err != nil {
				return // its end is near, and seen by others
			}
		} else if missed++; missed >= looks {
			s.putDown(w, stop, fmt.Sprintf("was killed because it did not answer for %v", s.Watchdog))
			return
		}
		inside := w.page.Inside()
		for thread := range stays {
			if _, ok := inside[thread]; !ok {
				delete(stays, thread)
			}
		}
		for thread, in := range inside {
			if stays[thread].turn != in.Turn {
				stays[thread] = stay{turn: in.Turn}
				continue
			}
			if stays[thread] = (stay{in.Turn, stays[thread].times + 1}); stays[thread].times >= looks {
				s.putDown(w, stop, fmt.Sprintf("was killed because it did not come back from the library for %v", s.Watchdog))
				return
			}
		}
	}
}

// putDown ends a worker that hangs: with SIGABRT, so that it writes down where,
// and then with SIGKILL.
func (s *Supervisor) putDown(w *worker, stop <-chan struct{}, why string) {
	s.mu.Lock()
	w.killed = why
	s.mu.Unlock()
	s.Log.Error("worker hangs", zap.Int("worker", w.pid), zap.String("why", why))
	_ = w.process.Process.Signal(unix.SIGABRT)
	select {
	case <-stop:
	case <-time.After(abortGrace):
		w.kill()
	}
}
