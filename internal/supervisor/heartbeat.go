package supervisor

import (
	"os"
	"strconv"
	"sync"
	"time"
)

// The service manager's watchdog (sd_watchdog_enabled(3)) restarts a daemon that sends no sign of
// life in time. The supervisor's main loop sends the sign. Before each sign the loop locks and
// unlocks s.mu, and checks that no start of a process hangs. So a supervisor that hangs sends none.

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

// signOfLife waits for s.mu, and then sends the service manager a sign of life. If a start of a
// process hangs, signOfLife sends none.
func (s *Supervisor) signOfLife() {
	s.count() // waits for s.mu
	if !s.forking.hangs() {
		s.notify("WATCHDOG=1")
	}
}

// A forkWatch knows which starts of processes are under way.
type forkWatch struct {
	mu     sync.Mutex
	starts map[*time.Time]struct{} // the time of each such start
}

// track calls make(), which starts a process. Until make() returns, the start counts as under way.
func (f *forkWatch) track(make func() error) error {
	defer f.begin(time.Now())()
	return make()
}

// begin adds a start to f.starts. The function end removes this start.
func (f *forkWatch) begin(at time.Time) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.starts == nil {
		f.starts = map[*time.Time]struct{}{}
	}
	f.starts[&at] = struct{}{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.starts, &at)
	}
}

// hangs says whether a start has taken longer than startTimeout.
func (f *forkWatch) hangs() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for at := range f.starts {
		if time.Since(*at) > startTimeout {
			return true
		}
	}
	return false
}
