package supervisor

import (
	"time"

	"go.uber.org/zap"
)

// The log has a line about the start of a session, a line about its end, and the entries of the
// session's worker. A caller that connects and closes in a loop must not fill the log. The rules:
//
//   - For each account, sessionBurst sessions at once and sessionRate sessions a second are logged.
//     The log has both lines of a session, or neither. The account's next line has the number of
//     sessions that were left out.
//   - A worker for one session has a limit of entries (relay.go). All such workers of one account
//     share a second limit: entriesBurst and entriesRate.
//   - Audit lines have other limits (audit.go).
//   - Lines about deaths of workers and lost sessions are always written. There are few of them,
//     because tlsd makes pauses after several deaths in a row (backoff.go, pool.go).
const (
	sessionBurst = 200
	sessionRate  = 20

	entriesBurst = 4 * relayBurst
	entriesRate  = 2 * relayRate
)

// logStart logs that a session has started. Above the limit, it counts the session as left out.
func (s *Supervisor) logStart(w *worker, sess *session) {
	s.mu.Lock()
	l := s.sessionLines.get(sess.peer.account(), sessionBurst, sessionRate)
	s.mu.Unlock()
	missed, ok := l.Take(time.Now(), 0)
	if sess.unlogged.Store(!ok); !ok {
		return
	}
	fields := sess.fields(w)
	if missed > 0 {
		fields = append(fields, zap.Uint64("missed", missed))
	}
	s.Log.Info("session started", fields...)
}

// logEnd logs that a session has ended, if the log has the line about the start.
func (s *Supervisor) logEnd(sess *session, fields []zap.Field) {
	if !sess.unlogged.Load() {
		s.Log.Info("session ended", fields...)
	}
}

// Lines of the log say how many sessions, or entries of workers, were left out before them.
// closeSessionLines logs how many were left out after the last of these lines. It is called at the
// end, when no session can follow.
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

// sharing makes a worker's function of the type share (relay.go). The function asks the limiter of
// the worker's account. A worker with many sessions has no account, and neither has a worker that
// has no session yet. For such a worker the function lets all entries pass.
func (s *Supervisor) sharing(w *worker) share {
	return func(missed uint64, weight int) (dropped uint64, ok bool) {
		s.mu.Lock()
		if w.user == nil {
			s.mu.Unlock()
			return missed, true
		}
		l := s.workerEntries.get(*w.user, entriesBurst, entriesRate)
		s.mu.Unlock()
		return l.TakeWeight(time.Now(), missed, weight)
	}
}
