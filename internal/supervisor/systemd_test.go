package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlsd/internal/handoff"
	"tlsd/internal/testkit"
)

// The service manager is told when tlsd is ready, reloads and stops, and how many sessions there
// are. The service manager's socket may have a path or an abstract name.
func TestServiceManagerIsTold(t *testing.T) {
	for _, name := range []string{filepath.Join(testkit.Dir(t), "notify"),
		"@tlsd-test-" + filepath.Base(testkit.Dir(t))} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		testkit.Must(t, err)
		defer l.Close()
		l.SetDeadline(time.Now().Add(testkit.Patience))
		t.Setenv("NOTIFY_SOCKET", name)
		d := startDaemon(t, workerPlay{Report: handoff.Ready{Backend: "openssl",
			Version: "OpenSSL 3.9"}}, nil)
		buf := make([]byte, 1000)
		hears := func(want string) {
			t.Helper()
			n, err := l.Read(buf)
			testkit.Must(t, err)
			got := string(buf[:n])
			if !regexp.MustCompile("^" + want + "$").MatchString(got) {
				t.Errorf("the socket %s gets %q; want %q", name, got, want)
			}
		}
		hears("READY=1\nSTATUS=OpenSSL 3.9; sessions: 0")
		c := d.dial()
		c.pid()
		hears("STATUS=OpenSSL 3.9; sessions: 1")
		d.Reload(func() {})
		hears(`RELOADING=1\nMONOTONIC_USEC=\d+`)
		hears("READY=1\nSTATUS=OpenSSL 3.9; sessions: 1")
		d.stop()
		most := testkit.Patience + endTimeout + reapTimeout + forceTimeout
		hears(fmt.Sprintf("STOPPING=1\nSTATUS=waiting for 1 sessions\n"+
			"EXTEND_TIMEOUT_USEC=%d", most.Microseconds()))
		c.say("bye")
		testkit.Must(t, d.wait())
	}
}

// The service manager gets signs of life (WATCHDOG=1) only while the supervisor's loop runs.
func TestServiceManagersWatchdogIsFedByTheLoop(t *testing.T) {
	name := filepath.Join(testkit.Dir(t), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	testkit.Must(t, err)
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
		if !fed(testkit.Patience) {
			t.Fatal("the supervisor runs, and the watchdog is not fed")
		}
	}
	d.mu.Lock() // now the supervisor's loop cannot go on
	fed(bound)  // a sign of life may be on its way
	if fed(3 * bound) {
		t.Error("the watchdog is fed by a supervisor that stands still")
	}
	d.mu.Unlock()
	if !fed(testkit.Patience) {
		t.Error("the supervisor runs again, and the watchdog is not fed")
	}
	// Now the start of one worker seems to hang. The start of another worker begins and ends,
	// but this must not be enough to feed the watchdog.
	end := d.forking.begin(time.Now().Add(-2 * startTimeout))
	d.forking.begin(time.Now())()
	fed(bound)
	if fed(3 * bound) {
		t.Error("the watchdog is fed by a supervisor that can start no worker")
	}
	end()
	c := d.dial()
	c.pid()
	d.stop()
	for range 2 {
		if !fed(testkit.Patience) {
			t.Error("the watchdog is not fed while sessions finish")
		}
	}
}

// tlsd feeds the service manager's watchdog only if WATCHDOG_PID names tlsd, or is not set. The
// interval is half of WATCHDOG_USEC.
func TestWatchdogOfAnotherProcessIsNotOurs(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"2000000", "", time.Second}, {"2000000", "1", 0},
		{"2000000", strconv.Itoa(os.Getpid()), time.Second},
		{"-2", "", 0}, {"soon", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := heartbeat(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%q, WATCHDOG_PID=%q: the interval is %v; want %v",
				c.usec, c.pid, got, c.want)
		}
	}
}

// tlsd tells the service manager that it is ready only after a worker has become ready.
func TestReadyMeansThatAWorkerWorks(t *testing.T) {
	name := filepath.Join(testkit.Dir(t), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	testkit.Must(t, err)
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	for _, warm := range []int{0, 1} {
		d := startDaemon(t, workerPlay{ExitAtStart: true},
			func(c *Config) { c.Warm = warm })
		d.until("a worker has failed", func() bool {
			died := d.logs.FilterMessage("worker ended unexpectedly")
			told := d.logs.FilterMessage(
				"worker was told to exit, and did not exit in good order")
			return died.Len()+told.Len() > 0
		})
		d.stop()
		testkit.Must(t, d.wait())
		l.SetReadDeadline(time.Now().Add(testkit.Patience))
		buf := make([]byte, 1000)
		n, err := l.Read(buf)
		if got := string(buf[:n]); err != nil || !strings.HasPrefix(got, "STOPPING=1") {
			t.Errorf("%d spares, and no worker starts: the first message is %q, %v; "+
				"want STOPPING", warm, got, err)
		}
	}
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Warm = 0 })
	l.SetReadDeadline(time.Now().Add(testkit.Patience))
	buf := make([]byte, 1000)
	if n, err := l.Read(buf); !strings.HasPrefix(string(buf[:n]), "READY=1") {
		t.Errorf("without spares the first message is %q, %v; want READY", buf[:n], err)
	}
	d.stop()
}

// If workers do not fulfil --require-openssl or --confine=require, the daemon serves no caller and
// ends with an error that says what is missing.
func TestRequirementsAreCheckedBeforeACallerIsServed(t *testing.T) {
	t.Parallel()
	good := handoff.Ready{Backend: "openssl", Version: "1",
		Confinement: map[string]string{"a": "on", "b": "on"}}
	stub, part := good, good
	stub.Backend, stub.Version, stub.Error = "stub", "", "tried everything"
	part.Confinement = map[string]string{"a": "on", "b": "no such thing"}
	for _, c := range []struct {
		report                   handoff.Ready
		needLibrary, needConfine bool
		want                     string
	}{
		{good, true, true, ""}, {stub, false, false, ""}, {part, true, false, ""},
		{stub, false, true, ""},
		{stub, true, false,
			"no usable OpenSSL, which --require-openssl wants: tried everything"},
		{part, false, true,
			"workers are confined in part only, and --confine=require wants all " +
				"measures; missing: b (no such thing)"},
	} {
		for _, warm := range []int{0, 1} {
			d := startDaemon(t, workerPlay{Report: c.report}, func(cfg *Config) {
				cfg.Warm, cfg.RequireOpenSSL = warm, c.needLibrary
				cfg.RequireConfinement = c.needConfine
			})
			if c.want == "" {
				d.dial().pid()
				continue
			}
			if err := d.wait(); !errors.Is(err, ErrUnfit) ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("Run returns %v; want %s", err, c.want)
			}
			if d.logs.FilterMessage("session started").Len() != 0 {
				t.Error("a caller was served although workers are unfit")
			}
		}
	}
}
