package supervisor

import (
	"fmt"
	"runtime"
	"testing"
)

// The timers of a worker may be late by timerSlack, so that the kernel can join wake-ups.
func TestWorkersHaveSlackTimers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	if got, want := d.dial().ask("slack"), fmt.Sprint(timerSlack.Nanoseconds()); got != want {
		t.Errorf("the worker's slack is %s ns, want %s", got, want)
	}
}

// The daemon's thread has timerSlack only while it starts a worker.
func TestTheSlackIsNotTheDaemonsOwn(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, during := slack(), ""
	withTimerSlack(timerSlack, func() error { during = slack(); return nil })
	if during != fmt.Sprint(timerSlack.Nanoseconds()) || slack() != before {
		t.Errorf("the thread's slack is %s ns before a start, %s during it, %s after it; "+
			"want %d only during it", before, during, slack(), timerSlack.Nanoseconds())
	}
}
