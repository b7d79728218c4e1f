package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"tlsd/internal/testd"
)

func TestMain(m *testing.M) { testd.Main(m) }

// root is the top of the source tree.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// env returns variables for a plugin, which then uses the daemon d, and never starts a private
// daemon.
func env(d *testd.Daemon) []string {
	return []string{"TLSD_SOCKET=" + d.Socket, "TLSD_AUTOSTART=0"}
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
