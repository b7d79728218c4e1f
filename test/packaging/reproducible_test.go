//go:build packages

package packaging

import (
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
			t.Errorf("the two builds of %s differ", name)
		}
		if i := strings.Index(a, first); i >= 0 {
			t.Errorf("%s names the folder that it was built in, at byte %d", name, i)
		}
	}
	out := succeed(t, exec.Command(filepath.Join(first, "bin/tlsd"), "--version"))
	if !strings.HasPrefix(out, "tlsd 1.2.3 (go1.") ||
		!strings.HasSuffix(out, ", commit 0123456789ab)\n") {
		t.Errorf("tlsd --version prints %q; want 1.2.3 and commit 0123456789ab", out)
	}
}
