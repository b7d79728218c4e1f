package supervisor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const shortBound = 400 * time.Millisecond

func TestHangingWorkerIsKilledAndItsCallerTold(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Watchdog = shortBound })
	other := d.dial()
	pid := other.pid()
	for _, tt := range []struct{ how, want string }{
		{"freeze", "was killed because it did not answer for 400ms in tls.Read"},
		{"stuck", "was killed because it did not come back from the library for 400ms in tls.Write"},
	} {
		c := d.dial()
		c.pid()
		begin := time.Now()
		c.say(tt.how)
		c.told(tt.want)
		if took := time.Since(begin); took < shortBound {
			t.Errorf("%s: killed after %v", tt.how, took)
		}
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
	must(t, unix.Kill(spare, unix.SIGSTOP)) // without a session it owes nobody an answer
	c := d.dial()                           // which takes the spare one
	begin := time.Now()
	c.told("was killed because it did not answer for 400ms")
	if took := time.Since(begin); took > 10*shortBound {
		t.Errorf("killed after %v", took)
	}
	hard.pid()
}
