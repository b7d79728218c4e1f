package admin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// nowhere writes a policy that forbids all connections, and returns its path.
func nowhere(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "policy.toml")
	testkit.Must(t, os.WriteFile(path, []byte("[default]\ndestinations = []\n"), 0o644))
	return path
}

// denied makes a call that the policy of nowhere forbids. It ends the test if tlsd does not deny
// the call.
func denied(t *testing.T, c *client.Client) {
	t.Helper()
	_, err := c.NewClient(t.Context(), "127.0.0.1", 1)
	var e *client.Error
	if !errors.As(err, &e) || e.Data.Kind != client.KindDenied {
		t.Fatalf("the policy forbids all connections; NewClient: %v; want kind denied", err)
	}
}

// hasLines waits until a file has exactly n audit lines of this name, such as "denied".
func hasLines(t *testing.T, path, name string, n int) {
	t.Helper()
	testkit.Until(t, fmt.Sprintf("%s has %d lines of %s", path, n, name), func() bool {
		text, _ := os.ReadFile(path)
		return strings.Count(string(text), `"msg":"`+name+`"`) == n
	})
}

// Audit lines go to the file of --audit-log, and not to the log. After the file was renamed, SIGHUP
// makes tlsd open a new file.
func TestTheAuditLogIsRotated(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	file := filepath.Join(dir, "audit")
	d := start(t, "--policy="+nowhere(t, dir), "--audit-log="+file)
	denied(t, d.Dial(t))
	hasLines(t, file, "denied", 1)
	d.must("log-level", "info")
	hasLines(t, file, "administrator", 1)
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "SIGHUP makes tlsd create a new audit log",
		func() bool { _, err := os.Stat(file); return err == nil })
	denied(t, d.Dial(t))
	hasLines(t, file, "denied", 1)
	hasLines(t, file+".1", "denied", 1)
	d.says([]string{"metrics"}, "tlsd_audit_missed_total 0\n")
	if log := d.Log(t); strings.Contains(log, `"logger":"audit"`) ||
		!strings.Contains(log, "audit log opened again") {
		t.Errorf("the log must have no audit line, and must say that the audit log "+
			"was opened again: %s", log)
	}
}

// If audit lines cannot be written, a metric counts them, and the log says once that they are lost.
// In this test, a file that cannot grow stands for a full disk.
func TestAuditLinesThatCannotBeWrittenAreCounted(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	file := filepath.Join(dir, "audit")
	// RLIMIT_FSIZE limits each file that tlsd writes. So the limit must be larger than the log,
	// and larger than the page that a worker shares with the supervisor.
	const size = 1 << 20
	testkit.Must(t, os.WriteFile(file, nil, 0o600))
	testkit.Must(t, os.Truncate(file, size))
	d := start(t, "--policy="+nowhere(t, dir), "--audit-log="+file)
	restore := testkit.Limit(t, d.PID, syscall.RLIMIT_FSIZE, size)
	c := d.Dial(t)
	const lost = 3
	for n := range lost {
		d.says([]string{"metrics"}, fmt.Sprintf("tlsd_audit_missed_total %d\n", n))
		denied(t, c)
		d.says([]string{"metrics"}, fmt.Sprintf("tlsd_audit_missed_total %d\n", n+1))
	}
	const once = "audit lines cannot be written and are lost"
	testkit.Until(t, "the log says that audit lines are lost", func() bool {
		return strings.Contains(d.Log(t), once)
	})
	if log := d.Log(t); strings.Count(log, once) != 1 ||
		!strings.Contains(log, "file too large") {
		t.Errorf("the log must say once that audit lines are lost, and why: %s", log)
	}
	restore()
	denied(t, c)
	hasLines(t, file, "denied", 1)
	hasLines(t, file, "audit lines were lost, because they could not be written", 1)
	testkit.Until(t, "the log says that audit lines can be written again", func() bool {
		return strings.Contains(d.Log(t), "the audit log can be written again")
	})
	d.says([]string{"metrics"}, fmt.Sprintf("tlsd_audit_missed_total %d\n", lost),
		fmt.Sprintf(`tlsd_denied_total{key="destinations"} %d`+"\n", lost+1),
		"tlsd_log_dropped_total 0\n")
}

// Without --audit-log, audit lines go to the log. If the log cannot be written, the metric of the
// log's lost lines counts them.
func TestAuditLinesOfALogThatCannotBeWrittenAreCounted(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	testkit.Must(t, err)
	defer full.Close()
	d := startWith(t, testd.Options{Stderr: full, Flags: []string{
		"--policy=" + nowhere(t, testkit.Dir(t)), "--log-level=error"}})
	c := d.Dial(t)
	for n := range 3 {
		d.says([]string{"metrics"}, fmt.Sprintf("tlsd_log_dropped_total %d\n", n))
		denied(t, c)
		d.says([]string{"metrics"}, fmt.Sprintf("tlsd_log_dropped_total %d\n", n+1),
			"tlsd_audit_missed_total 0\n")
	}
}

// A user causes more audit events than tlsd writes. Each event has a line, or it is counted twice:
// in the metric, and in the field missed of a later line.
func TestAuditEventsAboveTheLimitAreCounted(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	file := filepath.Join(dir, "audit")
	d := start(t, "--policy="+nowhere(t, dir), "--audit-log="+file)
	// More events than the limit for a session allows, and more than the limit for a user.
	const sessions, calls = 8, 100
	for range sessions {
		c := d.Dial(t)
		for range calls {
			denied(t, c)
		}
		c.Close()
	}
	metrics := d.says([]string{"metrics"}, "tlsd_sessions 0\n")
	_, after, _ := strings.Cut(metrics, "\ntlsd_audit_missed_total ")
	var missed int
	if _, err := fmt.Sscan(after, &missed); err != nil {
		t.Fatalf("the metrics lack tlsd_audit_missed_total: %v: %s", err, metrics)
	}
	d.must("log-level", "info") // the audit line about this order comes after all others
	hasLines(t, file, "administrator", 1)
	testkit.Must(t, d.Stop(t))
	text, err := os.ReadFile(file)
	testkit.Must(t, err)
	written, told := strings.Count(string(text), `"msg":"denied"`), 0
	for line := range strings.Lines(string(text)) {
		var l struct{ Missed int }
		decode(t, line, &l)
		told += l.Missed
	}
	if written < 50 || written+missed != sessions*calls || told != missed {
		t.Errorf("%d events have a line; the metric counts %d others, and the fields "+
			"missed count %d; want two equal counts, and %d events in all",
			written, missed, told, sessions*calls)
	}
}
