package supervisor

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// The service manager's watchdog (sd_watchdog_enabled(3)). It restarts a daemon that does not say
// in time that it is alive. The supervisor's own loop says so, and only if it can have the lock
// that everything needs, and no fork(2) hangs: a timer in a goroutine of its own would go on while
// all else stands still.

// heartbeat is the interval in which the service manager wants to hear of this process, halved; 0:
// it does not.
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

// startHeartbeat makes s.beat. The function ends it.
func (s *Supervisor) startHeartbeat() (stop func()) {
	every := heartbeat()
	if every == 0 {
		return func() {}
	}
	ticker := time.NewTicker(every)
	s.beat = ticker.C
	return ticker.Stop
}

// alive tells the service manager that the supervisor works, if it does.
func (s *Supervisor) alive() {
	s.count() // waits for s.mu
	if !s.forking.hangs() {
		s.notify("WATCHDOG=1")
	}
}

// A forkWatch knows since when a process is being made.
type forkWatch struct{ since atomic.Int64 }

// during notes the time that make takes. Of several at the same time the last one counts: the Go
// runtime makes one process after the other.
func (f *forkWatch) during(make func() error) error {
	f.since.Store(time.Now().UnixNano())
	defer f.since.Store(0)
	return make()
}

func (f *forkWatch) hangs() bool {
	since := f.since.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > startTimeout
}
