package supervisor

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// If more than freeDeaths workers of a user die one after another, the user's next session has to
// wait. Each further death makes the wait longer, up to longestPause. So a script that crashes the
// library in a loop does not keep the machine busy. Sessions of other users do not wait. The streak
// of deaths ends when a worker reports the end of its session, for whatever reason. Shared workers
// are left out: they neither lengthen nor end a streak.

const (
	freeDeaths    = 3 // a streak of at most so many deaths causes no pause
	shortestPause = 100 * time.Millisecond
	longestPause  = 10 * time.Second

	// If there are maxStreaks or more, the next death drops the streaks whose pause is over.
	maxStreaks = 1024
)

// A streak has the number of a user's workers that have died one after another.
type streak struct {
	deaths int
	until  time.Time // the end of the pause before the next session
}

// pauseAfter is the pause after a number of deaths in a row.
func pauseAfter(deaths int) time.Duration {
	if deaths <= freeDeaths {
		return 0
	}
	return min(shortestPause<<min(deaths-freeDeaths-1, 10), longestPause)
}

// countDeath counts the death of a worker that is not shared.
func (s *Supervisor) countDeath(as account) {
	now := time.Now()
	s.mu.Lock()
	if len(s.streaks) >= maxStreaks {
		for other, r := range s.streaks {
			if now.After(r.until) {
				delete(s.streaks, other)
			}
		}
	}
	r := s.streaks[as]
	r.deaths++
	pause := pauseAfter(r.deaths)
	r.until = now.Add(pause)
	s.streaks[as] = r
	s.mu.Unlock()
	if pause > 0 {
		s.limitedLog.Warn("workers of a user die in a row; its next session has to wait",
			as.field(), zap.Int("deaths", r.deaths), zap.Duration("pause", pause))
	}
}

// endStreak ends a user's streak.
func (s *Supervisor) endStreak(as account) {
	s.mu.Lock()
	delete(s.streaks, as)
	s.mu.Unlock()
}

// waitPause waits for the end of the user's pause.
func (s *Supervisor) waitPause(ctx context.Context, as account) error {
	s.mu.Lock()
	pause := time.Until(s.streaks[as].until)
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
