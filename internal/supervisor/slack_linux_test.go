package supervisor

import (
	"fmt"
	"runtime"
	"testing"
)

func TestWorkersHaveSlackTimers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	if got, want := d.dial().ask("slack"), fmt.Sprint(timerSlack.Nanoseconds()); got != want {
		t.Errorf("the worker's slack is %s ns, want %s", got, want)
	}
}

func TestTheSlackIsNotTheDaemonsOwn(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, during := slack(), ""
	withTimerSlack(timerSlack, func() error { during = slack(); return nil })
	if during != fmt.Sprint(timerSlack.Nanoseconds()) || slack() != before {
		t.Errorf("the slack is %s, then %s, and %s afterwards", before, during, slack())
	}
}
