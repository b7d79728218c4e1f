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

// signOfLife waits for s.mu, and then sends the service manager a sign of life. It sends none while
// a fork hangs.
func (s *Supervisor) signOfLife() {
	s.count() // waits for s.mu
	if !s.forking.hangs() {
		s.notify("WATCHDOG=1")
	}
}

// A forkWatch notices that no start of a process makes progress. The Go runtime starts one process
// after the other, so one start that hangs holds up all later ones.
type forkWatch struct {
	mu      sync.Mutex
	running int       // starts that have begun and not ended
	since   time.Time // when the first of them began, or when another start ended after that
}

// track calls make, a function that starts a process.
func (f *forkWatch) track(make func() error) error {
	f.change(1)
	defer f.change(-1)
	return make()
}

func (f *forkWatch) change(by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if by < 0 || f.running == 0 {
		f.since = time.Now()
	}
	f.running += by
}

// hangs says whether starts are running, and none has ended for startTimeout.
func (f *forkWatch) hangs() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running > 0 && time.Since(f.since) > startTimeout
}
