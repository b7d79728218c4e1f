//go:build packages

package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Builds of the same source with the same tools are equal, in any folder.
func TestTwoBuildsInTwoFoldersAreEqual(t *testing.T) {
	t.Parallel()
	first, second := copyOfSource(t, "one"), copyOfSource(t, "a/longer/folder")
	for _, dir := range []string{first, second} {
		succeed(t, makeIn(dir, "build", "VERSION=1.2.3", "COMMIT=0123456789ab"))
	}
	for _, name := range []string{"tlsd", "tlsshim", "TlsPlugin.so", "domhost"} {
		a, b := readFile(t, filepath.Join(first, "bin", name)),
			readFile(t, filepath.Join(second, "bin", name))
		if a != b {
			t.Errorf("%s differs", name)
		}
		if i := strings.Index(a, first); i >= 0 {
			t.Errorf("%s names the folder that it was built in, at byte %d", name, i)
		}
	}
	out := succeed(t, exec.Command(filepath.Join(first, "bin/tlsd"), "--version"))
	if !strings.HasPrefix(out, "tlsd 1.2.3 (go1.") ||
		!strings.HasSuffix(out, ", commit 0123456789ab)\n") {
		t.Errorf("tlsd --version: %q", out)
	}
}

// copyOfSource copies the files that Git knows, and new files, into a folder of the test's.
func copyOfSource(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = top
	list, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for _, file := range bytes.Split(bytes.TrimRight(list, "\x00"), []byte{0}) {
		from, to := filepath.Join(top, string(file)), filepath.Join(dir, string(file))
		info, err := os.Lstat(from)
		if err != nil || !info.Mode().IsRegular() {
			continue // removed, and not yet committed
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(readFile(t, from)),
			info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
