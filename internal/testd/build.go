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

// built is the folder for the programs that tests build. Main sets it.
var built string

// Main runs the tests and ends the process. Call it from TestMain. After all tests, Main calls each
// function of checks. If one of them returns an error, the test run fails.
func Main(m *testing.M, checks ...func() error) { os.Exit(run(m, checks)) }

func run(m *testing.M, checks []func() error) int {
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
	os.Setenv("TLSD_CONFIG", "none") // not the machine's configuration file
	code := m.Run()
	for _, check := range checks {
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, "afterwards:", err)
			code = max(code, 1)
		}
	}
	return code
}

// Exe builds a program of the folder cmd, "tlsd" or "tlsshim", and returns the path. All tests of
// the run share the program.
func Exe(tb testing.TB, name string) string {
	tb.Helper()
	return build(tb, name, func(file string) error {
		cmd := exec.Command("go", "build", "-trimpath", "-o", file, "./cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		return output(cmd)
	})
}

// Plugin builds TlsPlugin.so with the flags of the Makefile, and returns the path.
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

// Host builds the program of package testhost, and returns the path.
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

// builds has a *builder for each name of a program.
var builds sync.Map

type builder struct {
	once sync.Once
	err  error
}

// build makes a program once, for the first test that asks. Other tests wait. If TLSD_TEST_BIN
// names a folder, build copies the program from there instead. The copy is needed, because some
// tests run the program as another user, who may have no access to that folder.
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

// take copies a program that was built before. It fails if the program is older than its sources.
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

// sources returns the folders and files with the sources of a program, relative to root.
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

// fresh checks that a program exists and is newer than its sources. Sources that do not exist are
// not compared, because a test may run without the source tree.
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

// root is the top folder of the source tree.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
