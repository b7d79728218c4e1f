package supervisor

import (
	"time"

	"go.uber.org/zap"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
)

// Audit lines are written at every log level. An account may cause auditBurst lines at once and
// auditRate lines a second. Lines above the limit are dropped and counted. The account's next line
// has the count. If no line follows, closeAudit logs the count.
const (
	auditBurst = 200
	auditRate  = 20

	// If there are maxLimiters limiters or more, the idle ones are dropped before a new one is
	// made.
	maxLimiters = 1000
)

// writeAudit writes the audit line of an event. The parameter missed is the number of events that
// the worker dropped before this one. If e is nil, only dropped events are reported. number is the
// number of the session, or 0 if there is no session.
func (s *Supervisor) writeAudit(peer Peer, number uint64, e *audit.Event, missed uint64) {
	s.countAudit(e, missed)
	limiter := s.auditLimiter(peer.account())
	take := limiter.Take
	if e == nil {
		take = limiter.TakeReport
	}
	missed, ok := take(time.Now(), missed)
	if !ok {
		if e != nil {
			s.auditMissed(1)
		}
		return
	}
	fields := []zap.Field{zap.Uint32("uid", peer.UID), zap.Uint32("gid", peer.GID),
		zap.Int32("pid", peer.PID)}
	if number != 0 {
		fields = append(fields, zap.Uint64("session", number))
	}
	name := "left out"
	if e != nil {
		clean := e.Clean()
		name = clean.Name
		fields = append(fields, zap.String("method", clean.Method),
			zap.String("asked", clean.Asked))
		if clean.Key != "" {
			fields = append(fields, zap.String("key", clean.Key))
		}
	}
	if missed > 0 {
		fields = append(fields, zap.Uint64("missed", missed))
	}
	s.Audit.Info(name, fields...)
}

// auditReported handles an audit event that a worker reports about one of its sessions.
func (s *Supervisor) auditReported(w *worker, a *handoff.Audit) {
	s.mu.Lock()
	sess := w.sessions[a.Session]
	s.mu.Unlock()
	if sess == nil {
		s.limitedLog.Warn("worker reports an event of a session that it does not have",
			zap.Int("worker", w.pid), zap.Uint64("session", a.Session))
		return
	}
	s.writeAudit(sess.peer, sess.number, a.Event, a.Missed)
}

// auditLimiter is the limiter of an account.
func (s *Supervisor) auditLimiter(as account) *audit.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.auditLimiters.get(as, auditBurst, auditRate)
}

// limiters has a limiter for each account.
type limiters map[account]*audit.Limiter

// get returns the limiter of an account, or makes one with burst and rate. If there are maxLimiters
// or more, it first drops the idle ones. The caller must hold the lock that guards the map.
func (all *limiters) get(as account, burst, rate int) *audit.Limiter {
	l := (*all)[as]
	if l != nil {
		return l
	}
	if len(*all) >= maxLimiters {
		for other, l := range *all {
			if l.Idle(time.Now()) {
				delete(*all, other)
			}
		}
	}
	if *all == nil {
		*all = limiters{}
	}
	l = audit.NewLimiter(burst, rate)
	(*all)[as] = l
	return l
}

// closeAudit logs how many lines were dropped since each account's last line. It is called at the
// end, when no audit line can follow.
func (s *Supervisor) closeAudit() {
	s.mu.Lock()
	audits := s.auditLimiters
	s.auditLimiters = nil
	s.mu.Unlock()
	for as, l := range audits {
		if n := l.Missed(); n > 0 {
			s.Audit.Info("left out", as.field(), zap.Uint64("missed", n))
		}
	}
}
