package supervisor

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// A user whose workers die in a row while they serve has to wait for the next one, for longer each
// time, so that a script which crashes the library in a loop does not keep the machine busy with
// crashing. It is the user's own sessions that wait, and nobody else's. An orderly end of a session
// forgives everything. Workers that many users share are not counted here.

const (
	forgiven      = 3 // deaths in a row that cost nothing
	shortestPause = 100 * time.Millisecond
	longestPause  = 10 * time.Second
	mostRows      = 1024 // users that are remembered
)

// A row is a user's workers that have died one after another.
type row struct {
	deaths int
	until  time.Time // no new session before
}

// pauseAfter is how long a user waits after so many deaths in a row.
func pauseAfter(deaths int) time.Duration {
	if deaths <= forgiven {
		return 0
	}
	return min(shortestPause<<min(deaths-forgiven-1, 10), longestPause)
}

// died counts the death of a worker that served a user alone.
func (s *Supervisor) died(as account) {
	now := time.Now()
	s.mu.Lock()
	if len(s.rows) >= mostRows {
		for other, r := range s.rows {
			if now.After(r.until) {
				delete(s.rows, other)
			}
		}
	}
	r := s.rows[as]
	r.deaths++
	pause := pauseAfter(r.deaths)
	r.until = now.Add(pause)
	s.rows[as] = r
	s.mu.Unlock()
	if pause > 0 {
		s.callers.Warn("workers of a user die in a row; its next session has to wait",
			as.field(), zap.Int("deaths", r.deaths), zap.Duration("pause", pause))
	}
}

// forgive ends a user's row.
func (s *Supervisor) forgive(as account) {
	s.mu.Lock()
	delete(s.rows, as)
	s.mu.Unlock()
}

// waitTurn waits until the user may have another session.
func (s *Supervisor) waitTurn(ctx context.Context, as account) error {
	s.mu.Lock()
	pause := time.Until(s.rows[as].until)
	s.mu.Unlock()
	if pause <= 0 {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return waitError(ctx)
	}
}
