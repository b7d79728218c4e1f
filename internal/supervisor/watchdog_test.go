package supervisor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// These tests call the watchdog's checks themselves, and wait for the workers between two checks.
// So no worker is killed because the machine is slow. The watchdog's own first check would come
// after hours. test/e2e/tlsd tests the watchdog's own clock.

// startUnchecked starts a daemon whose watchdog makes no check during the test.
func startUnchecked(t *testing.T) *daemon {
	t.Helper()
	return startDaemon(t, workerPlay{}, func(c *Config) { c.Watchdog = 24 * time.Hour })
}

// checkAll checks each worker once, and waits until each has answered its ping. stopped is the pid
// of a worker that the test has stopped: checkAll does not wait for its answer.
func (d *daemon) checkAll(stopped int) {
	d.t.Helper()
	d.eachWorker(d.check)
	d.eachWorker(func(w *worker) {
		if w.pid == stopped {
			return
		}
		d.until("a worker answers its ping", func() bool {
			watched, _, lastPong, _ := d.observe(w)
			return !watched || lastPong == w.watchState.lastPing
		})
	})
}

// workerOf returns the worker with the pid.
func (d *daemon) workerOf(pid int) (found *worker) {
	d.t.Helper()
	d.eachWorker(func(w *worker) {
		if w.pid == pid {
			found = w
		}
	})
	if found == nil {
		d.t.Fatalf("no worker has the pid %d", pid)
	}
	return found
}

// hung counts the workers that the watchdog has killed.
func (d *daemon) hung() int { return d.logs.FilterMessage("worker hangs").Len() }

// After the timeout the watchdog kills a worker that does not answer its ping, and a worker that
// does not return from the library. Their callers are told. Other sessions go on.
func TestHangingWorkerIsKilledAndItsCallerTold(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t)
	other := d.dial()
	pid := other.pid()
	frozen, stuck := d.dial(), d.dial()
	stopped, inLibrary := frozen.pid(), d.workerOf(stuck.pid())
	frozen.say("freeze")
	stuck.say("stuck")
	d.until("a worker is stopped", func() bool { return !isRunning(stopped) })
	d.until("a worker is in the library", func() bool {
		_, active, _, _ := d.observe(inLibrary)
		return active
	})
	// The first check sends the pings, and sees the thread in the library. The timeout begins.
	for range checksPerTimeout {
		d.checkAll(stopped)
		if n := d.hung(); n != 0 {
			t.Fatalf("%d workers are killed before the timeout", n)
		}
	}
	d.checkAll(stopped)
	if n := d.hung(); n != 2 {
		t.Fatalf("%d workers are killed after the timeout, want 2", n)
	}
	frozen.told("was killed because it did not answer for 24h0m0s in tls.Read")
	stuck.told("was killed because it did not come back from the library for 24h0m0s " +
		"in tls.Write")
	if other.pid() != pid {
		t.Error("another session has got another worker")
	}
}

// The watchdog does not kill a worker that enters the library again and again, but returns each
// time. It does not kill a stopped worker either, as long as the worker has no session.
func TestWorkerThatOnlyWorksHardIsLeftAlone(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t)
	hard := d.dial()
	busy := d.workerOf(hard.pid())
	hard.say("busy")
	d.until("a spare is there", func() bool { return len(d.poolPIDs()) == 1 })
	spare := d.poolPIDs()[0]
	testkit.Must(t, unix.Kill(spare, unix.SIGSTOP))
	d.until("the spare is stopped", func() bool { return !isRunning(spare) })
	// checkLong makes more checks than the watchdog makes in twice the timeout. If a stopped
	// worker has a session, this is enough to kill it.
	checkLong := func() {
		t.Helper()
		for range 2*checksPerTimeout + 1 {
			d.checkAll(spare)
			seen := busy.watchState.stays[1].sequence // the line "busy" uses thread 1
			d.until("the busy worker enters the library again", func() bool {
				watched, _, _, inside := d.observe(busy)
				return !watched || inside[1].Sequence != seen
			})
		}
	}
	checkLong()
	if n := d.hung(); n != 0 {
		t.Fatalf("%d workers are killed, want none: the stopped one has no session", n)
	}
	c := d.dial() // it gets the spare worker
	d.logged("session started", 2)
	checkLong()
	if n := d.hung(); n != 1 {
		t.Fatalf("%d workers are killed, want only the stopped one", n)
	}
	c.told("was killed because it did not answer for 24h0m0s")
	hard.pid()
}
