package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// This file ends the sessions and the workers when the daemon stops.

// The errors of Run.
var (
	ErrDrainTimeout = errors.New("sessions were still open when the drain timeout was over, " +
		"and were ended")
	ErrForced = errors.New("sessions were still open, and were ended by force")
)

// forceTimeout limits the wait for killed workers when everything must end at once.
const forceTimeout = 2 * reapTimeout

// awaitStop waits for a reason to stop, and returns the reason.
func (s *Supervisor) awaitStop(ctx context.Context, force <-chan struct{}) string {
	var status <-chan time.Time
	if managed() {
		ticker := time.NewTicker(statusInterval)
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
			return "tlsd was told to stop"
		case <-force:
			return "tlsd was told to stop at once"
		case <-s.idle:
			if s.IdleExit > 0 {
				quiet.Reset(s.IdleExit)
			}
		case <-s.watchdogTick:
			s.signOfLife()
		case <-status:
			s.notifyStatus()
		case <-quiet.C:
			// If sessions are open now, s.idle starts the timer again when all have
			// ended.
			if s.count() == 0 {
				return fmt.Sprintf("no session for %v", s.IdleExit)
			}
		}
	}
}

// count is the number of sessions, and of connections that the function admit examines.
func (s *Supervisor) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// drain waits until no session is open. If that takes longer than DrainTimeout, it returns
// ErrDrainTimeout. If force is closed, it returns ErrForced.
func (s *Supervisor) drain(force <-chan struct{}) error {
	limit := time.NewTimer(s.DrainTimeout)
	defer limit.Stop()
	for s.count() > 0 {
		select {
		case <-s.idle:
		case <-s.watchdogTick:
			s.signOfLife()
		case <-limit.C:
			return ErrDrainTimeout
		case <-force:
			return ErrForced
		}
	}
	return nil
}

// endWorkers tells all workers to exit, and waits until they are gone. If the parameter kill is
// true, or when force is closed, it kills them.
func (s *Supervisor) endWorkers(kill bool, force <-chan struct{}) {
	gone := make(chan struct{})
	go func() { defer close(gone); s.watching.Wait() }()

	if kill {
		// stopNow comes before retire. A worker that is only retired could end its sessions
		// itself, and the callers would get the worker's reason, not the supervisor's.
		s.eachWorker(s.stopNow)
	}
	s.eachWorker(s.retire) // retire kills a worker that does not exit
	if !kill {
		select {
		case <-gone: // each worker has its own timeout
			return
		case <-force:
		}
	}
	s.eachWorker(s.stopNow)
	select {
	case <-gone:
	case <-time.After(forceTimeout):
		s.Log.Error("workers that were killed have not ended; they are left behind",
			zap.Int("workers", s.countWorkers()))
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
