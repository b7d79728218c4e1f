package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsd/internal/confine"
)

// The pool (Supervisor.pool) has workers for sessions of the daemon's own user:
//
//   - If Config.Shared is false, these are spares. A session takes one out of the pool, and
//     fillPool starts another.
//   - If Config.Shared is true, these are all workers for the daemon's own user. The worker with
//     the fewest sessions gets the next session.
//
// A session of another user always gets a worker of its own. Spares for other users are in the list
// Supervisor.others. Such a spare has not loaded the library. When it is engaged, it gets its
// configuration, and becomes the caller's user.

const (
	// A start that fails is a failure. The death of a worker in one of the two lists is a
	// failure, too. If the dead worker has lived longer than the constant settled, earlier
	// failures no longer count. After the first failure, fillPool starts a new worker at once.
	// After each further failure it first makes a pause. The pauses become longer, up to
	// longestGap.
	settled    = 10 * time.Second
	longestGap = 10 * time.Second
)

// spawn starts a worker and the goroutine that watches it. For the parameter other see start.
// Before another goroutine can see the worker, spawn calls enlist() under s.mu.
func (s *Supervisor) spawn(other bool, enlist func(*worker)) (*worker, error) {
	w, stderr, err := s.start(other)
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	s.mu.Lock()
	s.workers[w] = struct{}{}
	enlist(w)
	s.mu.Unlock()
	s.watching.Add(1)
	go s.watch(w, stderr)
	return w, nil
}

// fillPool keeps s.pool at the size Warm, and s.others at the size WarmOthers. It returns when the
// context life is done.
func (s *Supervisor) fillPool(life context.Context) {
	var pause time.Duration
	for {
		s.mu.Lock()
		lacks, lacksOther := len(s.pool) < s.Warm, len(s.others) < s.WarmOthers
		if s.failures > 1 {
			pause = min(50*time.Millisecond<<min(s.failures, 10), longestGap)
		} else {
			pause = 0
		}
		s.mu.Unlock()
		if !lacks && !lacksOther {
			select {
			case <-s.wake:
				continue
			case <-life.Done():
				return
			}
		}
		select {
		case <-time.After(pause):
		case <-life.Done():
			return
		}
		var err error
		if lacks {
			err = s.addToPool()
		} else {
			_, err = s.spawn(true, func(w *worker) { s.others = append(s.others, w) })
		}
		if err != nil {
			s.mu.Lock()
			s.failures++
			first := s.failures == 1
			s.mu.Unlock()
			if first {
				s.Log.Error("a worker cannot be started; tlsd keeps trying",
					zap.Error(err))
			}
		}
	}
}

// addToPool starts a worker for sessions of the daemon's own user.
func (s *Supervisor) addToPool() error {
	w, err := s.spawn(false, func(w *worker) {
		s.pool = append(s.pool, w)
		close(s.changed)
		s.changed = make(chan struct{})
	})
	if err == nil {
		s.engage(w, nil)
	}
	return err
}

// recordReport stores the report of a worker. A worker for another user may lie. So its report is
// stored only if it is the first report since tlsd's start. Only the first report is logged.
func (s *Supervisor) recordReport(w *worker) {
	s.mu.Lock()
	first := s.library == ""
	if first || !w.otherUser {
		s.library = cmp.Or(w.report.Version, "no usable OpenSSL")
		s.stub = w.report.Backend == "stub"
		s.confinement = w.report.Confinement
	}
	if first {
		s.misfit = s.fit(w.report)
	}
	s.mu.Unlock()
	if !first {
		return
	}
	defer close(s.firstReport)
	for _, measure := range slices.Sorted(maps.Keys(w.report.Confinement)) {
		if why := w.report.Confinement[measure]; why != confine.On {
			s.Log.Warn("workers are confined in part only",
				zap.String("without", measure), zap.String("why", why))
		}
	}
	switch r := w.report; {
	case r.Backend == "stub":
		s.Log.Warn("no usable OpenSSL: every TLS call will fail with an error that says so",
			zap.String("tried", r.Error))
	default:
		s.Log.Info("library loaded", zap.String("version", r.Version),
			zap.String("path", r.Path))
	}
}

// assign adds the session to the worker. It fails if the worker is gone.
func (s *Supervisor) assign(w *worker, sess *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.sessions == nil {
		return false
	}
	w.sessions[sess.number] = sess
	if w.single {
		as := sess.peer.account()
		w.user = &as
	}
	sess.slot = w.slots.take()
	if notes, err := w.page.Session(sess.slot); err == nil {
		notes.Clear()
	}
	return true
}

// unassign undoes assign. It returns false if the session has ended already: the worker has said
// so, or has died.
func (s *Supervisor) unassign(w *worker, sess *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, had := w.sessions[sess.number]
	if had {
		delete(w.sessions, sess.number)
		w.slots.put(sess.slot)
	}
	return had
}

// release takes back the 1 that acquire has added to the worker's load. If renew has replaced the
// worker meanwhile, and this was its last load, release retires the worker.
func (s *Supervisor) release(w *worker) {
	s.mu.Lock()
	w.load--
	drained := w.drained()
	s.mu.Unlock()
	if drained {
		s.retire(w)
	}
}

// retire tells a worker to end its sessions and exit, and kills the worker after endTimeout.
func (s *Supervisor) retire(w *worker) {
	s.mu.Lock()
	// If the worker is dead already (sessions is nil), this order is not the cause of its
	// death. So ending stays false, and workerGone counts the death as unexpected.
	if w.sessions != nil {
		w.ending = true
	}
	s.leavePool(w)
	s.mu.Unlock()
	_ = w.channel.CloseSend()
	time.AfterFunc(endTimeout, w.kill)
}

// leavePool removes a worker from s.pool or s.others. It returns false if the worker was in neither
// of the two. The caller holds s.mu.
func (s *Supervisor) leavePool(w *worker) (was bool) {
	for _, spares := range []*[]*worker{&s.pool, &s.others} {
		if i := slices.Index(*spares, w); i >= 0 {
			*spares = slices.Delete(*spares, i, i+1)
			wakeUp(s.wake)
			return true
		}
	}
	return false
}

// workerGone counts and logs the end of a worker that is gone, and closes its lost sessions.
func (s *Supervisor) workerGone(w *worker, log *zap.Logger, stderr string, death deathReport) {
	uptime := time.Since(w.started)
	lost := death.lost
	s.mu.Lock()
	s.tally.fold(w)
	delete(s.workers, w)
	told := w.ending
	inOrder := len(lost) == 0 && (w.single || told) && w.end.inOrder()
	expected := inOrder || told && !w.isReady()
	if !expected {
		s.tally.deaths[deathOf(w, death.cause)]++
	}
	for _, sess := range lost {
		if sess.ordered {
			s.tally.ended[endedOrdered]++
		} else {
			s.tally.ended[endedLost]++
		}
	}
	s.mu.Unlock()

	fields := []zap.Field{zap.String("exit", w.end.text()), zap.Duration("uptime", uptime)}
	if !expected {
		fields = append(fields, zap.String("cause", death.cause),
			zap.String("library", death.library),
			zap.String("operation", death.operation))
	}
	if stderr != "" {
		fields = append(fields, zap.String("stderr", stderr))
	}
	switch {
	case expected:
		log.Debug("worker ended", fields...)
	case told:
		log.Warn("worker was told to exit, and did not exit in good order",
			append(fields, zap.Int("sessions", len(lost)))...)
	default:
		log.Error("worker ended unexpectedly",
			append(fields, zap.Int("sessions", len(lost)))...)
	}
	for _, sess := range lost {
		s.Log.Warn("session lost",
			append(sess.fields(w), zap.Duration("duration", time.Since(sess.start)))...)
		s.closeSession(sess)
	}
}
