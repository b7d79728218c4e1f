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

// A metric counts the callers that get no session, for each reason. If the kernel does not tell who
// the caller is, the reason is "fault". Only a test of internal/supervisor causes such a fault. A
// caller that waits for a worker is counted only if the caller leaves before the worker is ready.

var reasons = []string{"denied", "limit", "left", "no_worker", "descriptors", "fault"}

// refused waits until the metrics count n callers for this reason, and none for another reason.
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
		d.t.Errorf("the metrics have %d reasons, but this test knows %d: %s", all,
			len(reasons), metrics)
	}
}

// caller connects to tlsd, and sends nothing.
func (d *watched) caller() net.Conn {
	d.t.Helper()
	conn, err := net.Dial("unix", d.Socket)
	testkit.Must(d.t, err)
	d.t.Cleanup(func() { conn.Close() })
	testkit.Must(d.t, conn.SetDeadline(time.Now().Add(testkit.Patience)))
	return conn
}

// turnedAway checks that a caller gets an error although it has sent nothing.
func (d *watched) turnedAway(kind, text string) {
	d.t.Helper()
	got, err := io.ReadAll(d.caller())
	if err != nil || !strings.Contains(string(got), `"id":null,"error"`) ||
		!strings.Contains(string(got), `"kind":"`+kind+`"`) ||
		!strings.Contains(string(got), text) {
		d.t.Errorf("a caller that must be refused reads %s, %v; want kind %s and %q", got,
			err, kind, text)
	}
}

// refusesWith lets the process pid open only a few more descriptors. It checks that callers then
// get an error, and are counted for the reason. Without the limit, the process serves a caller
// again.
func (d *watched) refusesWith(pid, free int, reason, kind, text string) {
	d.t.Helper()
	for n := range 3 {
		restore := testkit.LeaveDescriptors(d.t, pid, free)
		d.turnedAway(kind, text)
		restore()
		d.refused(reason, n+1)
	}
	d.Dial(d.t)
}

// With these flags, one worker serves all sessions.
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

// The daemon belongs to an ordinary user, and serves only this user. root calls it, and is denied.
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
	// tlsd needs more than 2 descriptors to start a worker
	d.refusesWith(d.PID, 2, "no_worker", "internal",
		"tlsd has no worker process for this session")
}

func TestCallersThatAWorkerCannotTakeAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, shared...)
	d.Dial(t)
	d.refusesWith(worker(t, d), 0, "descriptors", "limit", "has no descriptor free")
}

// No worker can start, so callers wait for one. They leave before they get a session.
func TestCallersThatLeaveBeforeTheirSessionAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, shared...)
	first := d.caller()
	d.says([]string{"metrics"}, "tlsd_session_start_seconds_count 1\n")
	pid := worker(t, d)
	testkit.LeaveDescriptors(t, d.PID, 0)
	testkit.Must(t, syscall.Kill(pid, syscall.SIGKILL))
	if got, err := io.ReadAll(first); err != nil || !strings.Contains(string(got), `"lost"`) {
		t.Fatalf("the worker was killed, and its caller reads %s, %v; want kind lost", got,
			err)
	}
	// The first caller has its error, so tlsd has closed the descriptors of the lost session.
	// With 4 more descriptors, tlsd can accept a caller, copy its descriptor, and accept an
	// administrator, but cannot start a worker.
	testkit.LeaveDescriptors(t, d.PID, 4)
	for n := range 3 {
		waits := d.caller()
		d.says([]string{"metrics"}, "tlsd_sessions 1\n")
		waits.Close()
		d.refused("left", n+1)
	}
}
