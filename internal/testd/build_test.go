package testd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// Tests of outdated programs would test the wrong code.
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
			t.Errorf("up to date, and refused: %v", err)
		}
	}
	write("session/a.go", 0)
	if fresh(tlsd, top) == nil {
		t.Error("tlsd is older than a source, and taken")
	}
	if err := fresh(plugin, top); err != nil {
		t.Errorf("the plugin is not made of Go, and refused: %v", err)
	}
	write("cmd/tlsshim/plugin/a.c", 0)
	if fresh(plugin, top) == nil {
		t.Error("the plugin is older than a source, and taken")
	}
	if fresh(filepath.Join(top, "bin/domhost"), top) == nil {
		t.Error("a program that is not there is taken")
	}
}
