package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestServiceManagerIsTold(t *testing.T) {
	for _, name := range []string{filepath.Join(shortDir(t), "notify"), "@tlsd-test-" + filepath.Base(shortDir(t))} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		must(t, err)
		defer l.Close()
		l.SetDeadline(time.Now().Add(patience))
		t.Setenv("NOTIFY_SOCKET", name)
		d := startDaemon(t, workerPlay{}, nil)
		buf := make([]byte, 100)
		for _, want := range []string{"READY=1", "STOPPING=1"} {
			n, err := l.Read(buf)
			must(t, err)
			if got := string(buf[:n]); got != want {
				t.Errorf("%s: told %q; want %q", name, got, want)
			}
			d.stop()
		}
		must(t, d.wait())
	}
}

// The service manager hears of a supervisor whose loop turns, and of no other.
func TestServiceManagersWatchdogIsFedByTheLoop(t *testing.T) {
	name := filepath.Join(shortDir(t), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	must(t, err)
	defer l.Close()
	const bound = 200 * time.Millisecond
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(int(bound/time.Microsecond)))
	d := startDaemon(t, workerPlay{}, nil)
	fed := func(within time.Duration) bool {
		l.SetReadDeadline(time.Now().Add(within))
		buf := make([]byte, 100)
		for {
			n, err := l.Read(buf)
			if err != nil {
				return false
			}
			if string(buf[:n]) == "WATCHDOG=1" {
				return true
			}
		}
	}
	for range 3 {
		if !fed(patience) {
			t.Fatal("the watchdog is not fed")
		}
	}
	d.mu.Lock() // everybody waits now
	fed(bound)  // it may have had the lock just before
	if fed(3 * bound) {
		t.Error("the watchdog is fed by a supervisor that stands still")
	}
	d.mu.Unlock()
	if !fed(patience) {
		t.Error("the watchdog is not fed any more")
	}
	d.forking.since.Store(time.Now().Add(-2 * startTimeout).UnixNano()) // a fork that does not return
	fed(bound)
	if fed(3 * bound) {
		t.Error("the watchdog is fed by a supervisor that can start no worker")
	}
	d.forking.since.Store(0)
	c := d.dial()
	c.pid()
	d.stop()
	for range 2 {
		if !fed(patience) {
			t.Error("the watchdog is not fed while sessions finish")
		}
	}
}

func TestWatchdogOfAnotherProcessIsNotOurs(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"2000000", "", time.Second}, {"2000000", strconv.Itoa(os.Getpid()), time.Second}, {"2000000", "1", 0}, {"-2", "", 0}, {"soon", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := heartbeat(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%q, WATCHDOG_PID=%q: %v; want %v", c.usec, c.pid, got, c.want)
		}
	}
}
