package supervisor

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is the time by which a worker's timers may be late (PR_SET_TIMERSLACK(2const)). The
// system's default is 50 µs. While a goroutine runs, Go's runtime checks every 20 µs whether a
// thread is stuck in the kernel or in C. With the default, these checks cost a busy worker up to a
// seventh of its CPU time. With 1 ms they are rarer. The worker's own timeouts do not suffer: they
// are mostly seconds, and never below 1 ms.
const timerSlack = time.Millisecond

// withTimerSlack calls start, a function that starts a process. The new process has the given
// slack, because it inherits the slack of the thread that starts it, and keeps it after execve(2).
func withTimerSlack(slack time.Duration, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil && unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0) }()
	}
	return start()
}
