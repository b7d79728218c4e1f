//go:build !linux

package supervisor

import "time"

// timerSlack is how late the timers of a worker may be; here that is the system's to say.
const timerSlack = 0

// withTimerSlack runs start.
func withTimerSlack(_ time.Duration, start func() error) error { return start() }
