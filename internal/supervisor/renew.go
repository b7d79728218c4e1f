package supervisor

import (
	"os"

	"go.uber.org/zap"
)

// After an update of the library, a worker with the old library still has the old faults. So it
// must get no new session. Workers are replaced in two cases: the settings are read again, or a new
// session would get a spare worker whose library's file has been replaced. Open sessions keep their
// worker.

// renew empties s.pool and s.others, and fillPool fills them again. Of the workers that were there,
// renew retires the idle ones at once. A worker with sessions exits when all of them have ended.
func (s *Supervisor) renew() {
	s.mu.Lock()
	var idle []*worker
	for _, w := range append(append([]*worker{}, s.pool...), s.others...) {
		s.leavePool(w)
		w.draining = true
		if w.drained() {
			idle = append(idle, w)
		}
	}
	s.mu.Unlock()
	for _, w := range idle {
		s.retire(w)
	}
}

// drained says whether renew has replaced the worker, and the worker has no session and gets none.
// Supervisor.mu must be held.
func (w *worker) drained() bool { return w.draining && w.load == 0 }

// outdated says whether the worker's library has been replaced or removed: at the library's path
// there is another file, or none. If the worker is not ready, or the file of its library is not
// known, outdated returns false.
func (w *worker) outdated() bool {
	if !w.isReady() || w.libraryFile == nil {
		return false
	}
	now, err := os.Stat(w.report.Path)
	return err != nil || !os.SameFile(now, w.libraryFile)
}

// renewIfOutdated says whether the library of w is outdated. The worker w comes from takeSpare. If
// its library is outdated, renewIfOutdated releases and retires w, and calls renew.
func (s *Supervisor) renewIfOutdated(w *worker) bool {
	if !w.outdated() {
		return false
	}
	s.Log.Info("the library has been replaced; idle workers are replaced, too",
		zap.String("path", w.report.Path))
	s.release(w)
	s.retire(w)
	s.renew()
	return true
}
