package supervisor

import (
	"os"

	"go.uber.org/zap"
)

// A worker that has loaded the library before an update must not get new sessions: it would still
// have the old faults. Idle workers are replaced in two cases: when the settings are read again,
// and when the library's file has been replaced. Sessions keep the library that they have.

// renew replaces all idle workers. A shared worker exits when its last session has ended.
func (s *Supervisor) renew() {
	s.mu.Lock()
	var idle []*worker
	for _, w := range append(append([]*worker{}, s.pool...), s.others...) {
		s.leavePool(w)
		w.draining = true
		if w.load == 0 {
			idle = append(idle, w)
		}
	}
	s.mu.Unlock()
	for _, w := range idle {
		s.retire(w)
	}
}

// outdated says whether the path of the worker's library now has another file.
func (w *worker) outdated() bool {
	if !w.isReady() || w.libraryFile == nil {
		return false
	}
	now, err := os.Stat(w.report.Path)
	return err != nil || !os.SameFile(now, w.libraryFile)
}

// renewIfOutdated replaces all idle workers if w has an old library, and says whether it did.
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
