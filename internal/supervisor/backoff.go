package supervisor

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// If a user's workers die in a row, the user's next session has to wait, and longer each time. So a
// script that crashes the library in a loop does not keep the machine busy. Only sessions of that
// user wait. A session that ends in good order ends the row. Deaths of shared workers do not count.

const (
	forgiven      = 3 // deaths in a row without a pause
	shortestPause = 100 * time.Millisecond
	longestPause  = 10 * time.Second
	mostRows      = 1024 // accounts with a row, above which rows without a pause are dropped
)

// A row counts a user's workers that have died one after another.
type row struct {
	deaths int
	until  time.Time // no new session begins before
}

// pauseAfter is the pause after a number of deaths in a row.
func pauseAfter(deaths int) time.Duration {
	if deaths <= forgiven {
		return 0
	}
	return min(shortestPause<<min(deaths-forgiven-1, 10), longestPause)
}

// died counts the death of a worker that served one session.
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

// waitTurn waits for the end of the user's pause.
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
