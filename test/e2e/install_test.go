package e2e

import (
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What make install puts where, with PREFIX=/usr, and how.
var installed = map[string]fs.FileMode{
	"usr/bin/tlsd":                    0o755,
	"usr/bin/tlsshim":                 0o755,
	"usr/lib/tlsd/TlsPlugin.so":       0o644,
	"usr/include/tlsplugin.h":         0o644,
	"usr/share/doc/tlsd/CHANGELOG.md": 0o644,
	"usr/share/doc/tlsd/LICENSE":      0o644,
	"usr/share/doc/tlsd/README.md":    0o644,
	"usr/share/doc/tlsd/proto.md":     0o644,
}

// The libraries that installed files may need: the C library, which is in several files before glibc 2.34.
// OpenSSL is not among them: it is loaded when tlsd runs.
var libc = map[string][]string{
	"usr/bin/tlsd":              {"libc.so.6", "libdl.so.2", "libpthread.so.0"},
	"usr/bin/tlsshim":           {},
	"usr/lib/tlsd/TlsPlugin.so": {"libc.so.6", "libpthread.so.0"},
}

func TestInstallPutsTheRightFiles(t *testing.T) {
	t.Parallel()
	dest := t.TempDir()
	succeed(t, program{name: "make", dir: root(t), args: []string{"--no-print-directory", "install", "DESTDIR=" + dest, "PREFIX=/usr"}})

	got := map[string]fs.FileMode{}
	err := filepath.WalkDir(dest, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		name, _ := filepath.Rel(dest, path) // it is below
		got[name] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range installed {
		if got[name] != mode {
			t.Errorf("%s: mode %v, want %v", name, got[name], mode)
		}
	}
	for name := range got {
		if _, ok := installed[name]; !ok {
			t.Errorf("%s is installed, and not in the list", name)
		}
	}
	for name, allowed := range libc {
		needed, err := open(t, filepath.Join(dest, name)).ImportedLibraries()
		if err != nil {
			t.Fatal(err)
		}
		for _, lib := range needed {
			if !slices.Contains(allowed, lib) {
				t.Errorf("%s needs %s", name, lib)
			}
		}
	}
	checkExports(t, filepath.Join(dest, "usr/lib/tlsd/TlsPlugin.so"), filepath.Join(dest, "usr/include/tlsplugin.h"))
}

// checkExports compares what the library offers with what its header declares. Anything more could come in the
// way of a symbol of the host's.
func checkExports(t *testing.T, library, header string) {
	t.Helper()
	symbols, err := open(t, library).DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var exported, declared []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			exported = append(exported, s.Name)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\w+ (\w+)\(`).FindAllStringSubmatch(readFile(t, header), -1) {
		declared = append(declared, m[1])
	}
	slices.Sort(exported)
	slices.Sort(declared)
	if !slices.Equal(exported, declared) {
		t.Errorf("exported: %s\ndeclared: %s", strings.Join(exported, " "), strings.Join(declared, " "))
	}
	if len(declared) != 17 {
		t.Errorf("%d functions are declared, want the 14 of the reference, tls_SetTimeout, tls_SetStrictWrites and tls_Cancel", len(declared))
	}
}

func open(t *testing.T, path string) *elf.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	e, err := elf.NewFile(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return e
}
