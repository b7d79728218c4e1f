package testd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/testcc"
	"tlsd/test/plugin/domhost"
)

// built is the folder of the programs. Main sets it.
var built string

// Main runs the tests and ends the process. Call it from TestMain. The functions afterwards run
// after all tests, and their errors fail the run.
func Main(m *testing.M, afterwards ...func() error) { os.Exit(run(m, afterwards)) }

func run(m *testing.M, afterwards []func() error) int {
	dir, err := os.MkdirTemp("", "tlsd-built-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testd:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = dir
	os.Setenv("TLSD_CONFIG", "none") // a daemon of a test does not take the machine's settings
	code := m.Run()
	for _, look := range afterwards {
		if err := look(); err != nil {
			fmt.Fprintln(os.Stderr, "afterwards:", err)
			code = max(code, 1)
		}
	}
	return code
}

// Exe builds a program of cmd, "tlsd" or "tlsshim", and returns its path. All tests share the
// program.
func Exe(tb testing.TB, name string) string {
	tb.Helper()
	return build(tb, name, func(file string) error {
		cmd := exec.Command("go", "build", "-trimpath", "-o", file, "./cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		return output(cmd)
	})
}

// Plugin builds TlsPlugin.so, as strictly as make does, and returns its path.
func Plugin(tb testing.TB) string {
	tb.Helper()
	return build(tb, "TlsPlugin.so", func(file string) error {
		sources, err := filepath.Glob(filepath.Join(root(), "cmd/tlsshim/plugin/*.c"))
		if err != nil || len(sources) == 0 {
			return errors.New("no sources of the plugin")
		}
		return testcc.Compile(context.Background(), "cc", file, sources, "-O2", "-fPIC",
			"-shared", "-fvisibility=hidden", "-Wl,-z,defs,-z,relro,-z,now", "-pthread")
	})
}

// Host builds the host of internal/testhost and returns its path.
func Host(tb testing.TB) string {
	tb.Helper()
	return build(tb, "host", func(file string) error {
		return testcc.Compile(context.Background(), "cc", file,
			[]string{filepath.Join(root(), "internal/testhost/src/host.c")}, "-O2",
			"-I", filepath.Join(root(), "cmd/tlsshim/plugin"), "-ldl", "-pthread")
	})
}

// Domhost builds domhost and returns its path.
func Domhost(tb testing.TB) string {
	tb.Helper()
	return build(tb, "domhost", func(file string) error {
		return domhost.Build(file, "-O2", "-lm")
	})
}

// builds has a *builder for each file.
var builds sync.Map

type builder struct {
	once sync.Once
	err  error
}

// build makes a file once, for the first test that asks; other tests wait. If TLSD_TEST_BIN names a
// folder, the file is copied from there instead. It is not used in place, because other users, for
// whom a test runs it, may have no access to that folder.
func build(tb testing.TB, name string, compile func(file string) error) string {
	tb.Helper()
	if built == "" {
		tb.Fatal("testd: TestMain of this package must call testd.Main")
	}
	if dir := os.Getenv("TLSD_TEST_BIN"); dir != "" {
		compile = func(file string) error { return take(filepath.Join(dir, name), file) }
	}
	file := filepath.Join(built, name)
	v, _ := builds.LoadOrStore(name, &builder{})
	b := v.(*builder)
	b.once.Do(func() { b.err = compile(file) })
	if b.err != nil {
		tb.Fatalf("testd: build %s: %v", name, b.err)
	}
	return file
}

// take copies a program that was built before, if it is up to date.
func take(from, to string) error {
	err := fresh(from, root())
	if err != nil {
		return fmt.Errorf("TLSD_TEST_BIN: %w", err)
	}
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return WriteProgram(to, program)
}

// sources are the sources of a program, below the top of the source tree.
func sources(program string) []string {
	switch filepath.Base(program) {
	case "TlsPlugin.so":
		return []string{"cmd/tlsshim/plugin"}
	case "domhost":
		return []string{"test/plugin/domhost/src"}
	case "host":
		return []string{"internal/testhost/src", "cmd/tlsshim/plugin/tlsplugin.h"}
	}
	return []string{"go.mod", "go.sum", "cmd", "internal", "openssl", "rpc", "session"}
}

// fresh checks that a program exists and is newer than its sources. Where a test runs without the
// sources, there is nothing to compare.
func fresh(program, top string) error {
	built, err := os.Stat(program)
	if err != nil {
		return err
	}
	for _, from := range sources(program) {
		err := filepath.WalkDir(filepath.Join(top, from),
			func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() || strings.HasSuffix(path, "_test.go") {
					return err
				}
				source, err := e.Info()
				if err == nil && source.ModTime().After(built.ModTime()) {
					err = fmt.Errorf("%s is older than %s: run make build",
						program, path)
				}
				return err
			})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func output(cmd *exec.Cmd) error {
	cmd.Dir = root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// root is the top of the source tree, where tests run.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
