package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tlsd/internal/testcc"
)

// A root is a small system with one version of OpenSSL, in a folder. Roots have no compilers. So
// the programs that run in the roots are built outside of them, on this machine.

func (m *matrix) goDir() string           { return filepath.Join(m.build, "go") }
func (m *matrix) binDir(v version) string { return filepath.Join(m.build, v.name) }

// buildGo builds the Go programs and the tests. These load libssl and libc at run time, so one
// build works in all roots.
func (m *matrix) buildGo() error {
	commands := [][]string{
		{"build", "-trimpath", "-o", filepath.Join(m.goDir(), "tlsd"), "./cmd/tlsd"},
		{"build", "-trimpath", "-o", filepath.Join(m.goDir(), "tlsshim"), "./cmd/tlsshim"},
	}
	built := map[string]bool{}
	for _, s := range suites {
		for _, p := range s.programs {
			if built[p.pkg] {
				continue
			}
			built[p.pkg] = true
			commands = append(commands, []string{"test", "-c", "-tags", "scan", "-o",
				filepath.Join(m.goDir(), p.file()), "./" + p.pkg})
		}
	}
	for _, args := range commands {
		cmd := exec.CommandContext(m.ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// buildC builds the C programs against the libc of a root.
func (m *matrix) buildC(v version) error {
	for name, how := range map[string]struct {
		sources string
		flags   []string
	}{
		"TlsPlugin.so": {"cmd/tlsshim/plugin/*.c",
			[]string{"-fPIC", "-shared", "-fvisibility=hidden", "-Wl,-z,defs",
				"-pthread"}},
		"domhost": {"test/plugin/domhost/src/*.c", []string{"-ldl", "-lm"}},
		"host": {"internal/testhost/src/*.c", []string{"-Icmd/tlsshim/plugin", "-ldl",
			"-pthread"}},
	} {
		sources, err := filepath.Glob(how.sources)
		if err != nil || len(sources) == 0 {
			return fmt.Errorf("no sources of %s", name)
		}
		root := filepath.Join(v.dir, "root")
		libs, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*"))
		if err != nil || len(libs) != 1 {
			return fmt.Errorf("no C library in %s", root)
		}
		// Without -B and -L, gcc would first look in the library folder of this machine,
		// although --sysroot is set.
		flags := append([]string{"--sysroot=" + root, "-B" + libs[0], "-L" + libs[0],
			"-O2"}, how.flags...)
		if err := testcc.Compile(m.ctx, "cc", filepath.Join(m.binDir(v), name), sources,
			flags...); err != nil {
			return fmt.Errorf("for %s: %w", v.name, err)
		}
	}
	return nil
}

// copyFiles fills a new folder with links to the files of another.
func copyFiles(to, from string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Link(filepath.Join(from, f.Name()),
			filepath.Join(to, f.Name())); err != nil {
			return err
		}
	}
	return nil
}
