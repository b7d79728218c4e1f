package testd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// fresh refuses a program that is older than its sources. Otherwise tests would test old code.
func TestAProgramThatIsOlderThanItsSourcesIsRefused(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	write := func(name string, age time.Duration) string {
		t.Helper()
		file := filepath.Join(top, name)
		testkit.Must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		testkit.Must(t, os.WriteFile(file, nil, 0o644))
		at := time.Now().Add(-age)
		testkit.Must(t, os.Chtimes(file, at, at))
		return file
	}
	tlsd, plugin := write("bin/tlsd", time.Hour), write("bin/TlsPlugin.so", time.Hour)
	write("session/a.go", 2*time.Hour)
	write("session/a_test.go", 0)
	write("cmd/tlsshim/plugin/a.c", 2*time.Hour)
	for _, program := range []string{tlsd, plugin} {
		if err := fresh(program, top); err != nil {
			t.Errorf("a program that is up to date is refused: %v", err)
		}
	}
	write("session/a.go", 0)
	if fresh(tlsd, top) == nil {
		t.Error("tlsd is older than one of its sources, but is not refused")
	}
	if err := fresh(plugin, top); err != nil {
		t.Errorf("the plugin has no source in Go, but is refused for a new Go file: %v",
			err)
	}
	write("cmd/tlsshim/plugin/a.c", 0)
	if fresh(plugin, top) == nil {
		t.Error("the plugin is older than one of its sources, but is not refused")
	}
	if fresh(filepath.Join(top, "bin/domhost"), top) == nil {
		t.Error("a program that does not exist is not refused")
	}
}
