package supervisor

import (
	"time"

	"go.uber.org/zap"
)

// The log has a line when a session starts, one when it ends, and the entries of its worker. A
// caller that connects and closes in a loop must not fill the log by that. The rules:
//
//   - A user has so many sessions in the log at once, and so many a second from then on. The log
//     has both lines of a session, or none. The next line of the user says how many sessions were
//     left out.
//   - The entries of all workers of a user that serve one session each are limited together, beside
//     the limit of each worker.
//   - Audit lines, the loss of a session and the death of a worker are not among these. They have
//     limits of their own.
const (
	sessionBurst = 200
	sessionRate  = 20

	entriesBurst = 4 * relayBurst
	entriesRate  = 2 * relayRate
)

// logStart logs that a session has started, or counts it.
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

// closeSessionLines logs the counts of sessions and entries that no line has had. No session
// follows.
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

// sharing limits the entries of a worker together with those of its user's other workers. missed
// entries were left out before this one. A worker of many users' sessions has only its own limit.
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
