package supervisor

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// The service manager's watchdog (sd_watchdog_enabled(3)) restarts a daemon that sends no sign of
// life in time. The supervisor's main loop sends it, if the loop gets the main lock and no fork(2)
// hangs. No separate goroutine sends it, because that would go on while everything else hangs.

// heartbeat is half of the interval in which the service manager expects a sign of life. 0: the
// service manager expects none.
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

// startHeartbeat starts the ticker s.watchdogTick. stop ends the ticker.
func (s *Supervisor) startHeartbeat() (stop func()) {
	every := heartbeat()
	if every == 0 {
		return func() {}
	}
	ticker := time.NewTicker(every)
	s.watchdogTick = ticker.C
	return ticker.Stop
}

// signOfLife sends the service manager a sign of life, if the supervisor works.
func (s *Supervisor) signOfLife() {
	s.count() // waits for s.mu
	if !s.forking.hangs() {
		s.notify("WATCHDOG=1")
	}
}

// A forkWatch notes when the start of a process began, in ns since 1970; 0: no start is under way.
type forkWatch struct{ since atomic.Int64 }

// track runs make, which starts a process. If several starts run at the same time, the last one
// counts. That suffices, because the Go runtime starts one process after the other.
func (f *forkWatch) track(make func() error) error {
	f.since.Store(time.Now().UnixNano())
	defer f.since.Store(0)
	return make()
}

func (f *forkWatch) hangs() bool {
	since := f.since.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > startTimeout
}
