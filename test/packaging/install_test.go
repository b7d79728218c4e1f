package packaging

import (
	"debug/elf"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tlsd/internal/testd"
)

// The map installed has the files that make install with PREFIX=/usr must make, and their modes.
var installed = map[string]fs.FileMode{
	"usr/bin/tlsd":                                     0o755,
	"usr/bin/tlsshim":                                  0o755,
	"usr/lib/tlsd/TlsPlugin.so":                        0o644,
	"usr/lib/pkgconfig/tlsd.pc":                        0o644,
	"usr/include/tlsplugin.h":                          0o644,
	"usr/lib/systemd/system/tlsd.service":              0o644,
	"usr/lib/systemd/system/tlsd.socket":               0o644,
	"usr/lib/systemd/user/tlsd.service":                0o644,
	"usr/lib/systemd/user/tlsd.socket":                 0o644,
	"usr/share/doc/tlsd/CHANGELOG.md":                  0o644,
	"usr/share/doc/tlsd/policy.toml":                   0o644,
	"usr/share/doc/tlsd/tlsd.toml":                     0o644,
	"usr/share/doc/tlsd/tlsd.rules.yml":                0o644,
	"usr/share/doc/tlsd/tlsd-dashboard.json":           0o644,
	"usr/share/doc/tlsd/tlsd.logrotate":                0o644,
	"usr/share/bash-completion/completions/tlsd":       0o644,
	"usr/share/bash-completion/completions/tlsshim":    0o644,
	"usr/share/zsh/site-functions/_tlsd":               0o644,
	"usr/share/zsh/site-functions/_tlsshim":            0o644,
	"usr/share/fish/vendor_completions.d/tlsd.fish":    0o644,
	"usr/share/fish/vendor_completions.d/tlsshim.fish": 0o644,
	"usr/share/man/man1/tlsshim.1":                     0o644,
	"usr/share/man/man3/tlsplugin.3":                   0o644,
	"usr/share/man/man5/tlsd-policy.5":                 0o644,
	"usr/share/man/man5/tlsd.toml.5":                   0o644,
	"usr/share/man/man8/tlsd.8":                        0o644,
	"usr/share/doc/tlsd/LICENSE":                       0o644,
	"usr/share/doc/tlsd/README.md":                     0o644,
	"usr/share/doc/tlsd/SECURITY.md":                   0o644,
	"usr/share/doc/tlsd/proto.md":                      0o644,
	"usr/share/doc/tlsd/docs/comparison.md":            0o644,
	"usr/share/doc/tlsd/docs/features.md":              0o644,
	"usr/share/doc/tlsd/docs/from-your-language.md":    0o644,
	"usr/share/doc/tlsd/docs/operations.md":            0o644,
	"usr/share/doc/tlsd/docs/scripting.md":             0o644,
	"usr/share/doc/tlsd/docs/settings.md":              0o644,
	"usr/share/doc/tlsd/docs/upgrading.md":             0o644,
	"usr/share/doc/tlsd/docs/user.md":                  0o644,
	"usr/share/tlsd/bindings/README.md":                0o644,
	"usr/share/tlsd/bindings/tlsd.lua":                 0o644,
	"usr/share/tlsd/bindings/tlsd.mjs":                 0o644,
	"usr/share/tlsd/bindings/tlsd.py":                  0o644,
}

// libc has the libraries that each program may need: the files of the C library, of which glibc
// before 2.34 has several. OpenSSL is not among them, because tlsd loads it at run time.
var libc = map[string][]string{
	"tlsd":         {"libc.so.6", "libdl.so.2", "libpthread.so.0"},
	"tlsshim":      {},
	"TlsPlugin.so": {"libc.so.6", "libpthread.so.0"},
}

// install runs make install, or another target, with the programs that the tests have built.
func install(t *testing.T, target, dest string, variables ...string) {
	t.Helper()
	cmd := makeIn(top, append([]string{target, "BIN=" + bin, "DESTDIR=" + dest},
		variables...)...)
	// If make install tries to build or to download, it gets these programs, which fail.
	traps := t.TempDir()
	for _, name := range []string{"go", "cc", "gcc", "apt-get", "curl", "sudo"} {
		if err := testd.WriteProgram(filepath.Join(traps, name),
			[]byte("#!/bin/sh\necho "+name+" is called >&2\nexit 9\n")); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+traps+":"+os.Getenv("PATH"))
	if out := succeed(t, cmd); strings.Contains(out, "is called") {
		t.Errorf("make %s builds or downloads, want only copies:\n%s", target, out)
	}
}

// filesBelow returns the files below a folder, and their modes.
func filesBelow(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path) // never fails: path is below dir
		found[name] = info.Mode()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// make install makes exactly the files of the map installed, and make uninstall removes all of
// them.
func TestInstallPutsTheRightFiles(t *testing.T) {
	t.Parallel()
	dest := t.TempDir()
	install(t, "install", dest, "PREFIX=/usr", "VERSION=7.8.9")
	got := filesBelow(t, dest)
	for name, mode := range installed {
		if got[name] != mode {
			t.Errorf("make install: %s has mode %v (only dashes: no file), want %v",
				name, got[name], mode)
		}
	}
	for name := range got {
		if _, ok := installed[name]; !ok {
			t.Errorf("make install makes %s, which the map installed lacks", name)
		}
	}
	pc := readFile(t, filepath.Join(dest, "usr/lib/pkgconfig/tlsd.pc"))
	for _, line := range []string{"libdir=/usr/lib\n", "includedir=/usr/include\n",
		"Version: 7.8.9\n"} {
		if !strings.Contains(pc, line) {
			t.Errorf("tlsd.pc lacks %q:\n%s", line, pc)
		}
	}
	install(t, "uninstall", dest, "PREFIX=/usr")
	if left := filesBelow(t, dest); len(left) > 0 {
		t.Errorf("make uninstall leaves %v", slices.Sorted(maps.Keys(left)))
	}
}

// make install and make uninstall obey the variables PREFIX, LIBDIR and MANDIR.
func TestInstallTakesItsFolders(t *testing.T) {
	t.Parallel()
	dest := t.TempDir()
	folders := []string{"PREFIX=/opt/x", "LIBDIR=/usr/lib/machine-abi", "MANDIR=/man"}
	install(t, "install", dest, folders...)
	got := filesBelow(t, dest)
	if unit := readFile(t, filepath.Join(dest,
		"opt/x/lib/systemd/system/tlsd.service")); !strings.Contains(unit,
		"\nExecStart=/opt/x/bin/tlsd\n") {
		t.Errorf("the unit does not start /opt/x/bin/tlsd:\n%s", unit)
	}
	for _, name := range []string{"opt/x/bin/tlsd", "usr/lib/machine-abi/tlsd/TlsPlugin.so",
		"usr/lib/machine-abi/pkgconfig/tlsd.pc", "man/man8/tlsd.8"} {
		if _, ok := got[name]; !ok {
			t.Errorf("make install %v has not made %s", folders, name)
		}
	}
	install(t, "uninstall", dest, folders...)
	if left := filesBelow(t, dest); len(left) > 0 {
		t.Errorf("make uninstall leaves %v", slices.Sorted(maps.Keys(left)))
	}
}

// If make build was not run, make install says so, and installs nothing.
func TestInstallSaysThatNothingIsBuilt(t *testing.T) {
	t.Parallel()
	dest := t.TempDir()
	out, err := makeIn(top, "install", "BIN="+t.TempDir(), "DESTDIR="+dest).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "run make build first") {
		t.Errorf("make install without programs ends with %v; want a failure with \"run "+
			"make build first\"\n%s", err, out)
	}
	if left := filesBelow(t, dest); len(left) > 0 {
		t.Errorf("make install without programs has installed %v", left)
	}
}

// The programs and the plugin need no library but the C library.
func TestProgramsNeedNoOtherLibrary(t *testing.T) {
	t.Parallel()
	for name, allowed := range libc {
		needed, err := open(t, filepath.Join(bin, name)).ImportedLibraries()
		if err != nil {
			t.Fatal(err)
		}
		for _, lib := range needed {
			if !slices.Contains(allowed, lib) {
				t.Errorf("%s needs the library %s, want at most %v", name, lib,
					allowed)
			}
		}
	}
}

// The programs and the plugin can be loaded at a random address. No memory of theirs is writable
// and executable. The tables that the loader fills in become read-only.
func TestProgramsAreHardened(t *testing.T) {
	t.Parallel()
	for name := range libc {
		f := open(t, filepath.Join(bin, name))
		if f.Type != elf.ET_DYN {
			t.Errorf("%s is of type %v, so it is always at the same address",
				name, f.Type)
		}
		relro := false
		for _, p := range f.Progs {
			relro = relro || p.Type == elf.PT_GNU_RELRO
			if p.Type == elf.PT_GNU_STACK && p.Flags&elf.PF_X != 0 {
				t.Errorf("%s has a stack that can be executed", name)
			}
			if p.Type == elf.PT_LOAD &&
				p.Flags&(elf.PF_W|elf.PF_X) == elf.PF_W|elf.PF_X {
				t.Errorf("%s has memory that can be written to and executed", name)
			}
		}
		flags, err := f.DynValue(elf.DT_FLAGS)
		if err != nil {
			t.Fatal(err)
		}
		if bindNow := len(flags) > 0 &&
			elf.DynFlag(flags[0])&elf.DF_BIND_NOW != 0; !relro || !bindNow {
			t.Errorf("%s: RELRO is %v and BIND_NOW is %v, want both", name, relro,
				bindNow)
		}
	}
}

func open(t *testing.T, path string) *elf.File {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// sh can parse the scripts in the packages, and those that make packages and releases.
func TestScriptsOfPackagesAreShell(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob(top + "/packaging/scripts/*")
	if err != nil || len(scripts) != 6 {
		t.Fatalf("packaging/scripts has %v (%v), want three scripts for .deb and three "+
			"for .rpm", scripts, err)
	}
	for _, script := range append(scripts, top+"/packaging/packages.sh",
		top+"/scripts/version.sh", top+"/scripts/release.sh", top+"/scripts/pristine.sh") {
		succeed(t, exec.Command("sh", "-n", script))
	}
}
