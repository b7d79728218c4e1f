package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"tlsd/internal/testkit"
)

// A sink is a log in memory.
type sink struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// audited opens an audit log in a file. It returns the auditLog, a logger that writes audit lines,
// and the main log.
func audited(t *testing.T) (a *auditLog, audit *zap.Logger, log *sink) {
	t.Helper()
	log = &sink{}
	main, inLog := newLogAt(log, log, zap.InfoLevel, false)
	a, audit, err := openAuditLog(t.TempDir()+"/audit", main, inLog)
	if err != nil {
		t.Fatal(err)
	}
	return a, audit, log
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// If audit lines have a file of their own, they do not go to the main log as well.
func TestAuditLinesGoToTheirFileAlone(t *testing.T) {
	t.Parallel()
	a, audit, log := audited(t)
	audit.Info("denied", zap.Int("uid", 5))
	a.close()
	got := content(t, a.path)
	if strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, `"logger":"audit","msg":"denied","uid":5}`) {
		t.Errorf("the audit log has %q; want one line", got)
	}
	if log.String() != "" {
		t.Errorf("the main log has %q; want nothing", log)
	}
}

// A program that rotates logs moves the audit log away, and sends SIGHUP. Then the method reopen
// makes a new file, and later lines go there. If the path is a symbolic link, reopen refuses it.
func TestAnAuditLogThatWasMovedIsMadeAnew(t *testing.T) {
	t.Parallel()
	a, audit, log := audited(t)
	wait := func(path, want string) {
		t.Helper()
		testkit.Until(t, path+" has "+want,
			func() bool { return strings.Contains(content(t, path), want) })
	}
	audit.Info("one")
	wait(a.path, `"one"`)
	if err := os.Rename(a.path, a.path+".1"); err != nil {
		t.Fatal(err)
	}
	audit.Info("two")
	wait(a.path+".1", `"two"`)
	a.reopen()
	audit.Info("three")
	wait(a.path, `"three"`)

	// A symbolic link is refused.
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(a.path+".1", a.path); err != nil {
		t.Fatal(err)
	}
	a.reopen()
	audit.Info("four")
	a.close()
	if got := content(t, a.path+".1"); strings.Contains(got, "three") ||
		strings.Contains(got, "four") {
		t.Errorf("the moved file has %q; want no line that came after reopen", got)
	}
	if !strings.Contains(log.String(), "audit log opened again") ||
		!strings.Contains(log.String(), "cannot be opened again") {
		t.Errorf("the main log has %q; want a line that the audit log was opened again, "+
			"and a line that the symbolic link cannot be opened", log)
	}
	if st, err := os.Stat(a.path + ".1"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the audit log's mode is %v (%v), want 0600", st.Mode(), err)
	}
}

// If audit lines cannot be written, the main log says so once, and not for each line. When lines
// can be written again, both logs have the number of lost lines.
func TestAFullDiskIsLoggedOnceAndLostAuditLinesAreCounted(t *testing.T) {
	t.Parallel()
	a, audit, log := audited(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	good := a.file.Swap(full)
	lost := func(n int) {
		t.Helper()
		testkit.Until(t, fmt.Sprint(n, " lines are lost"),
			func() bool { return a.losses() == n })
	}
	for n := range 5 {
		audit.Info("lost")
		lost(n + 1)
	}
	const once = "audit lines cannot be written"
	if strings.Count(log.String(), once) != 1 ||
		!strings.Contains(log.String(), "no space left on device") {
		t.Errorf("the main log has %q; want %q once, and why", log, once)
	}
	a.file.Swap(good).Close()
	audit.Info("kept")
	a.close()
	got := content(t, a.path)
	if !strings.Contains(got, `"kept"`) ||
		!strings.Contains(got, `because they could not be written","entries":5`) {
		t.Errorf("the audit log has %q; want the kept line, and 5 lost lines", got)
	}
	if !strings.Contains(log.String(), `lost","path":"`+a.path+`","entries":5`) {
		t.Errorf("the main log has %q; want 5 lost lines", log)
	}
	if none := (*auditLog)(nil); none.losses() != 0 {
		t.Error("without an audit log, the method losses does not return 0")
	}
}
