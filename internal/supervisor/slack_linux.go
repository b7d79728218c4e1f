package supervisor

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late the timers of a worker may be (PR_SET_TIMERSLACK(2const); the system's own
// is 50 µs). While anything runs, Go's runtime looks every 20 µs whether a thread is stuck in the
// kernel or in C; with so short a slack these looks cost a worker that answers one call after the
// other up to a seventh of its CPU time. What it times itself are seconds as a rule, and never less
// than a millisecond.
const timerSlack = time.Millisecond

// withTimerSlack runs start, which starts a process with this slack: a process inherits it from the
// thread that starts it, and keeps it when it executes another program.
func withTimerSlack(slack time.Duration, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil && unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0) }()
	}
	return start()
}
