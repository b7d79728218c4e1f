package supervisor

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// The service manager's watchdog (sd_watchdog_enabled(3)) restarts a daemon that sends no sign of
// life in time. The supervisor's main loop sends the sign, after it has got the lock s.mu, and if
// no fork(2) hangs. A goroutine that only sends signs would send them even if everything else
// hangs.

// heartbeat returns the time between two signs of life: half of the service manager's timeout. It
// returns 0 if the service manager expects none.
func heartbeat() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 || us > int64(time.Hour*24*365/time.Microsecond) {
		return 0
	}
	return time.Duration(us) * time.Microsecond / 2
}

// startHeartbeat starts the ticker of s.watchdogTick, if the service manager expects signs of life.
// The function stop ends the ticker.
func (s *Supervisor) startHeartbeat() (stop func()) {
	every := heartbeat()
	if every == 0 {
		return func() {}
	}
	ticker := time.NewTicker(every)
	s.watchdogTick = ticker.C
	return ticker.Stop
}

// signOfLife waits for s.mu, and then sends the service manager a sign of life. It sends none while
// a fork hangs.
func (s *Supervisor) signOfLife() {
	s.count() // waits for s.mu
	if !s.forking.hangs() {
		s.notify("WATCHDOG=1")
	}
}

// A forkWatch notes when the start of a process began, in ns since 1970; 0: no start is under way.
type forkWatch struct{ since atomic.Int64 }

// track calls make, a function that starts a process. If several starts run at the same time, only
// the newest is noted. That is enough, because the Go runtime starts one process after the other.
func (f *forkWatch) track(make func() error) error {
	f.since.Store(time.Now().UnixNano())
	defer f.since.Store(0)
	return make()
}

func (f *forkWatch) hangs() bool {
	since := f.since.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > startTimeout
}
