package supervisor

import (
	"os"

	"go.uber.org/zap"
)

// Workers that have loaded the library before it was replaced on the disk are not for new sessions:
// they would go on with its faults. Those that wait for a session are replaced when the settings
// are read again, and when the file that they have loaded is not at its place any more. Sessions
// keep the library that they have.

// renew replaces all workers that wait for sessions. Shared ones go when their last session has
// ended.
func (s *Supervisor) renew() {
	s.mu.Lock()
	var idle []*worker
	for _, w := range append(append([]*worker{}, s.pool...), s.others...) {
		s.leavePool(w)
		w.outgoing = true
		if w.load == 0 {
			idle = append(idle, w)
		}
	}
	s.mu.Unlock()
	for _, w := range idle {
		s.retire(w)
	}
}

// outdated says whether the worker's library is another file than the one at its place now.
func (w *worker) outdated() bool {
	if !w.isReady() || w.libraryFile == nil {
		return false
	}
	now, err := os.Stat(w.report.Path)
	return err != nil || !os.SameFile(now, w.libraryFile)
}

// renewIfOutdated replaces the workers that wait, if the one that was taken for a session has an
// old library.
func (s *Supervisor) renewIfOutdated(w *worker) bool {
	if !w.outdated() {
		return false
	}
	s.Log.Info("the library has been replaced; workers that wait are started anew", zap.String("path", w.report.Path))
	s.release(w)
	s.retire(w)
	s.renew()
	return true
}
