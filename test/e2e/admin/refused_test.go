package admin

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Each caller that gets no session counts once, for its reason. The reason "fault" is the kernel's
// failure to say who calls. No test here can provoke that: see internal/supervisor. A caller that
// has to wait because workers have died is not refused.

var reasons = []string{"denied", "limit", "left", "no_worker", "descriptors", "fault"}

// refused checks that n callers were refused for this reason, and none for another reason.
func (d *watched) refused(reason string, n int) {
	d.t.Helper()
	if !slices.Contains(reasons, reason) {
		d.t.Fatalf("there is no reason %q", reason)
	}
	var want []string
	for _, r := range reasons {
		count := 0
		if r == reason {
			count = n
		}
		want = append(want, fmt.Sprintf("tlsd_sessions_refused_total{reason=%q} %d\n", r,
			count))
	}
	metrics := d.says([]string{"metrics"}, want...)
	if all := strings.Count(metrics, "tlsd_sessions_refused_total{"); all != len(reasons) {
		d.t.Errorf("there are %d reasons; want %d: %s", all, len(reasons), metrics)
	}
}

// caller connects and says nothing.
func (d *watched) caller() net.Conn {
	d.t.Helper()
	conn, err := net.Dial("unix", d.Socket)
	testkit.Must(d.t, err)
	d.t.Cleanup(func() { conn.Close() })
	testkit.Must(d.t, conn.SetDeadline(time.Now().Add(testkit.Patience)))
	return conn
}

// turnedAway checks that a caller is told of an error before it says anything.
func (d *watched) turnedAway(kind, text string) {
	d.t.Helper()
	got, err := io.ReadAll(d.caller())
	if err != nil || !strings.Contains(string(got), `"id":null,"error"`) ||
		!strings.Contains(string(got), `"kind":"`+kind+`"`) ||
		!strings.Contains(string(got), text) {
		d.t.Errorf("a caller is told %s, %v; want kind %s and %q", got, err, kind, text)
	}
}

// refusesWith checks that callers are turned away while a process has only so many descriptors
// left, and that they are counted for the reason. Later a caller is served.
func (d *watched) refusesWith(pid, left int, reason, kind, text string) {
	d.t.Helper()
	for n := range 3 {
		restore := testkit.LeaveDescriptors(d.t, pid, left)
		d.turnedAway(kind, text)
		restore()
		d.refused(reason, n+1)
	}
	d.Dial(d.t)
}

// shared has one worker for all sessions.
var shared = []string{"--isolation=shared", "--workers=1"}

func TestCallersAboveALimitOfSessionsAreCounted(t *testing.T) {
	t.Parallel()
	for flag, text := range map[string]string{
		"--max-sessions":         "the limit of this tlsd",
		"--max-sessions-per-uid": "the limit for one user",
	} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			d := start(t, flag+"=2")
			d.Dial(t)
			d.Dial(t)
			d.refused("limit", 0)
			for n := range 3 {
				d.turnedAway("limit", text)
				d.refused("limit", n+1)
			}
		})
	}
}

// This daemon is an ordinary user's, and root is the stranger.
func TestDeniedCallersAreCounted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to start a daemon of another user")
	}
	t.Parallel()
	const nobody = 65534
	d := startWith(t, testd.Options{UID: nobody})
	for n := range 3 {
		d.turnedAway("denied", "user 0 may not use this tlsd")
		d.refused("denied", n+1)
	}
	d.says([]string{"metrics"}, `tlsd_denied_total{key="connect"} 3`+"\n")
}

func TestCallersWithoutAWorkerAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, "--spare=0")
	d.Dial(t)
	// a worker's start needs more than 2 descriptors
	d.refusesWith(d.PID, 2, "no_worker", "internal",
		"tlsd has no worker process for this session")
}

func TestCallersThatAWorkerCannotTakeAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, shared...)
	d.Dial(t)
	d.refusesWith(worker(t, d), 0, "descriptors", "limit", "has no descriptor free")
}

// No worker can start, so callers wait. A caller's descriptors are free when it is told that its
// session is lost.
func TestCallersThatLeaveBeforeTheirSessionAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, shared...)
	first := d.caller()
	d.says([]string{"metrics"}, "tlsd_session_start_seconds_count 1\n")
	pid := worker(t, d)
	testkit.LeaveDescriptors(t, d.PID, 0)
	testkit.Must(t, syscall.Kill(pid, syscall.SIGKILL))
	if got, err := io.ReadAll(first); err != nil || !strings.Contains(string(got), `"lost"`) {
		t.Fatalf("the caller of a dead worker is told %s, %v", got, err)
	}
	// for a caller, its copy and the administrator; a worker's start needs more
	testkit.LeaveDescriptors(t, d.PID, 4)
	for n := range 3 {
		waits := d.caller()
		d.says([]string{"metrics"}, "tlsd_sessions 1\n")
		waits.Close()
		d.refused("left", n+1)
	}
}
