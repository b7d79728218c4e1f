//go:build !linux

package supervisor

import "time"

// timerSlack is unused on this system: workers have the system's default.
const timerSlack = 0

// withTimerSlack calls start. It changes no slack.
func withTimerSlack(_ time.Duration, start func() error) error { return start() }
