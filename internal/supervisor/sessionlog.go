package supervisor

import (
	"time"

	"go.uber.org/zap"
)

// The log has a line when a session starts, one when it ends, and the entries of its worker. A
// caller that connects and closes in a loop must not fill the log. The rules:
//
//   - A user may log sessionBurst sessions at once, and sessionRate sessions a second. The log has
//     both lines of a session, or none. The user's next line says how many sessions were left out.
//   - A worker for one session has its own limit of entries. All such workers of one user share
//     another limit.
//   - These limits do not hold for audit lines, lost sessions and deaths of workers. They have
//     limits of their own.
const (
	sessionBurst = 200
	sessionRate  = 20

	entriesBurst = 4 * relayBurst
	entriesRate  = 2 * relayRate
)

// logStart logs that a session has started, or counts the session as left out.
func (s *Supervisor) logStart(w *worker, sess *session) {
	s.mu.Lock()
	l := s.sessionLines.of(sess.peer.account(), sessionBurst, sessionRate)
	s.mu.Unlock()
	missed, ok := l.Take(time.Now(), 0)
	if sess.unlogged = !ok; !ok {
		return
	}
	fields := sess.fields(w)
	if missed > 0 {
		fields = append(fields, zap.Uint64("missed", missed))
	}
	s.Log.Info("session started", fields...)
}

// logEnd logs that a session has ended, if the log has its start.
func (s *Supervisor) logEnd(sess *session, fields []zap.Field) {
	if !sess.unlogged {
		s.Log.Info("session ended", fields...)
	}
}

// closeSessionLines logs the counts of sessions and entries that no earlier line has reported. No
// session follows.
func (s *Supervisor) closeSessionLines() {
	s.mu.Lock()
	sessions, entries := s.sessionLines, s.workerEntries
	s.sessionLines, s.workerEntries = nil, nil
	s.mu.Unlock()
	for text, all := range map[string]limiters{
		"sessions left out": sessions, "entries of workers left out": entries,
	} {
		for as, l := range all {
			if n := l.Missed(); n > 0 {
				s.Log.Info(text, as.field(), zap.Uint64("missed", n))
			}
		}
	}
}

// sharing returns the limit that the worker shares with its user's other workers. A worker for many
// sessions shares no limit.
func (s *Supervisor) sharing(w *worker) share {
	return func(missed uint64, weight int) (before uint64, ok bool) {
		s.mu.Lock()
		if w.user == nil {
			s.mu.Unlock()
			return missed, true
		}
		l := s.workerEntries.of(*w.user, entriesBurst, entriesRate)
		s.mu.Unlock()
		return l.TakeWeight(time.Now(), missed, weight)
	}
}
