package supervisor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// shortBound is long enough for a worker that waits for the processor.
const shortBound = 5 * time.Second

func TestHangingWorkerIsKilledAndItsCallerTold(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Watchdog = shortBound })
	other := d.dial()
	pid := other.pid()
	frozen, stuck := d.dial(), d.dial()
	frozen.pid()
	stuck.pid()
	begin := time.Now()
	frozen.say("freeze")
	stuck.say("stuck")
	frozen.told("was killed because it did not answer for 5s in tls.Read")
	stuck.told("was killed because it did not come back from the library for 5s in tls.Write")
	if took := time.Since(begin); took < shortBound {
		t.Errorf("killed after %v", took)
	}
	d.logged("worker hangs", 2)
	if other.pid() != pid {
		t.Error("another session has changed its worker")
	}
}

func TestWorkerThatOnlyWorksHardIsLeftAlone(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Watchdog = shortBound })
	hard := d.dial()
	hard.pid()
	hard.say("busy")
	d.until("a spare is there", func() bool { return len(d.poolPIDs()) == 1 })
	spare := d.poolPIDs()[0]
	testkit.Must(t, unix.Kill(spare, unix.SIGSTOP)) // without a session it gets no pings
	c := d.dial()                                   // it gets the spare worker
	c.told("was killed because it did not answer for 5s")
	hard.pid()
}
