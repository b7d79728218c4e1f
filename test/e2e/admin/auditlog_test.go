package admin

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testkit"
)

// Audit lines go to the file of --audit-log, which SIGHUP opens again, and not to the log.
func TestTheAuditLogIsRotated(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	policy, file := filepath.Join(dir, "policy.toml"), filepath.Join(dir, "audit")
	nowhere := []byte("[default]\ndestinations = []\n")
	if err := os.WriteFile(policy, nowhere, 0o644); err != nil {
		t.Fatal(err)
	}
	d := start(t, "--policy="+policy, "--audit-log="+file)
	refused := func() {
		t.Helper()
		if _, err := d.Dial(t).NewClient(t.Context(), "localhost", 1); err == nil {
			t.Fatal("the policy allows it")
		}
	}
	lines := func(path, name string, want int) {
		t.Helper()
		testkit.Until(t, path+" has lines of "+name, func() bool {
			text, _ := os.ReadFile(path)
			return strings.Count(string(text), `"msg":"`+name+`"`) == want
		})
	}
	refused()
	lines(file, "denied", 1)
	d.must("log-level", "info")
	lines(file, "administrator", 1)
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "there is a new file",
		func() bool { _, err := os.Stat(file); return err == nil })
	refused()
	lines(file, "denied", 1)
	lines(file+".1", "denied", 1)
	d.says([]string{"metrics"}, "tlsd_audit_missed_total 0\n")
	if log := d.Log(t); strings.Contains(log, `"logger":"audit"`) ||
		!strings.Contains(log, "audit log opened again") {
		t.Errorf("the log has %s", log)
	}
}
