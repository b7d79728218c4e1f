package supervisor

import (
	"time"

	"go.uber.org/zap"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
)

// Audit lines are written whatever the level of the log is. A user has so many of them at once, and
// so many a second from then on; what is left out is counted, and said in the next line that is
// written for the user, or at the end.
const (
	auditBurst  = 200
	auditRate   = 20
	auditMemory = 1000 // users who are remembered, although they could be forgotten
)

// record writes the audit line of an event: e, or, if that is nil, that missed others were left
// out.
func (s *Supervisor) record(peer Peer, number uint64, e *audit.Event, missed uint64) {
	s.audited(e, missed)
	missed, ok := s.auditing(peer.account()).Take(time.Now(), missed)
	if !ok {
		s.auditMissed(1)
		return
	}
	fields := []zap.Field{zap.Uint32("uid", peer.UID), zap.Uint32("gid", peer.GID), zap.Int32("pid", peer.PID)}
	if number != 0 {
		fields = append(fields, zap.Uint64("session", number))
	}
	name := "left out"
	if e != nil {
		clean := e.Clean()
		name = clean.Name
		fields = append(fields, zap.String("method", clean.Method), zap.String("asked", clean.Asked))
		if clean.Key != "" {
			fields = append(fields, zap.String("key", clean.Key))
		}
	}
	if missed > 0 {
		fields = append(fields, zap.Uint64("missed", missed))
	}
	s.Audit.Info(name, fields...)
}

// reported takes a worker's word for what a session of it has done.
func (s *Supervisor) reported(w *worker, a *handoff.Audit) {
	s.mu.Lock()
	sess := w.sessions[a.Session]
	s.mu.Unlock()
	if sess == nil {
		s.callers.Warn("worker reports of a session that it does not have", zap.Int("worker", w.pid), zap.Uint64("session", a.Session))
		return
	}
	s.record(sess.peer, sess.number, a.Event, a.Missed)
}

// auditing is the limiter of a user.
func (s *Supervisor) auditing(as account) *audit.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.audits[as]
	if l == nil {
		if len(s.audits) >= auditMemory {
			for other, l := range s.audits {
				if l.Idle(time.Now()) {
					delete(s.audits, other)
				}
			}
		}
		l = audit.NewLimiter(auditBurst, auditRate)
		s.audits[as] = l
	}
	return l
}

// closeAudit says what was left out and not told of. Nobody audits any more.
func (s *Supervisor) closeAudit() {
	s.mu.Lock()
	audits := s.audits
	s.audits = nil
	s.mu.Unlock()
	for as, l := range audits {
		if n := l.Missed(); n > 0 {
			s.Audit.Info("left out", as.field(), zap.Uint64("missed", n))
		}
	}
}
