package supervisor

import (
	"context"
	"os"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// If more than freeDeaths workers of a user die in a row, the user's next session has to wait for a
// time, which is called the pause. When a worker of the user reports that a session has ended, the
// earlier deaths no longer count.
func TestUserWhoseWorkersDieInARowHasToWait(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	uid := uint32(os.Getuid())
	for n := range freeDeaths + 2 {
		c := d.dial()
		c.say("crash")
		c.told("died of a panic")
		d.mu.Lock()
		if got := d.streaks[userAccount(uid)].deaths; got != n+1 {
			t.Errorf("%d workers have died in a row, %d deaths are counted", n+1, got)
		}
		d.mu.Unlock()
	}
	f := d.logged("workers of a user die in a row; its next session has to wait", 2)
	if f["uid"] != uid || f["deaths"] != int64(freeDeaths+2) || f["pause"] != 2*shortestPause {
		t.Errorf("the log says %v; want uid %d, %d deaths and a pause of %v", f, uid,
			freeDeaths+2, 2*shortestPause)
	}
	d.mu.Lock()
	until := d.streaks[userAccount(uid)].until
	d.mu.Unlock()
	c := d.dial()
	c.pid()
	if now := time.Now(); now.Before(until) {
		t.Errorf("the next session is served %v before its pause ends", until.Sub(now))
	}
	c.say("bye")
	c.cut()
	d.logged("session ended", 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.streaks) != 0 {
		t.Errorf("a session has ended in good order, and deaths still count: %v", d.streaks)
	}
}

// A user whose workers die in a row has to wait. Other users do not.
func TestOneUsersStreakDelaysNoOtherUser(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	for range freeDeaths + 20 { // enough deaths for the longest pause
		d.countDeath(account(os.Getuid() + 1))
	}
	// With a context that has ended, waitPause succeeds only for a user without a pause.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.waitPause(ctx, account(os.Getuid()+1)); err == nil {
		t.Error("the user whose workers have died does not have to wait")
	}
	if err := d.waitPause(ctx, account(os.Getuid())); err != nil {
		t.Errorf("a user whose workers live has to wait: %v", err)
	}
	d.dial().pid()
}

// A caller that waits for the end of its pause does not count as refused. If it closes its
// connection before the pause ends, it counts as refused with the reason "left".
func TestACallerThatLeavesInItsPauseIsCounted(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	as := userAccount(uint32(os.Getuid()))
	d.mu.Lock()
	d.streaks[as] = streak{deaths: freeDeaths + 1, until: time.Now().Add(time.Hour)}
	d.mu.Unlock()
	c := d.dial()
	d.until("the caller waits", func() bool { return d.values()["tlsd_sessions"] == 1 })
	d.has(map[string]float64{"tlsd_sessions_refused_total left": 0,
		"tlsd_session_start_seconds count": 0})
	testkit.Must(t, c.Close())
	d.until("the caller that has left is counted", func() bool {
		return d.values()["tlsd_sessions_refused_total left"] == 1
	})
	d.endStreak(as)
	d.dial().pid()
	d.countsStarts(1)
	d.has(map[string]float64{"tlsd_sessions_refused_total left": 1,
		"tlsd_sessions_refused_total no_worker": 0})
}

// The first deaths cause no pause. Each further death doubles the pause, up to longestPause.
func TestPausesGrowToABound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		deaths int
		want   time.Duration
	}{
		{0, 0}, {1, 0}, {freeDeaths, 0},
		{freeDeaths + 1, 100 * time.Millisecond}, {freeDeaths + 2, 200 * time.Millisecond},
		{freeDeaths + 7, 6400 * time.Millisecond},
		{freeDeaths + 8, longestPause}, {freeDeaths + 1000, longestPause},
	} {
		if got := pauseAfter(tt.deaths); got != tt.want {
			t.Errorf("the pause after %d deaths is %v; want %v", tt.deaths, got,
				tt.want)
		}
	}
}
