// Package plugin tests TlsPlugin.so, the C library, from outside. Hosts in C, Python and LuaJIT
// load it. A stand-in for tlsd, or the real one, answers.
//
// The stand-in (standin_test.go) deliberately sends messages that a healthy tlsd never sends. The C
// host (internal/testhost) carries out the commands of a test, so the test has both sides of the
// conversation. Host and plugin are built with the address and undefined-behaviour sanitizers,
// unless a test says otherwise.
//
// A missing tool skips the tests that need it. With TLSD_TEST_STRICT=1 it fails them.
package plugin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/testcc"
	"tlsd/internal/testkit"
)

const sources = "../../cmd/tlsshim/plugin"

// strict are the flags that the library's sources must compile with, without a warning.
var strict = append(testcc.Strict(), "-pthread")

// A flavour is a way to build host and plugin.
type flavour struct {
	name  string
	cc    string
	flags []string
	env   []string // variables for the host
}

var (
	plain = &flavour{name: "plain", cc: "gcc", flags: []string{"-O2"}}
	asan  = &flavour{name: "asan", cc: "gcc",
		flags: []string{"-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
			"-fno-omit-frame-pointer"},
		env: []string{"ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=97",
			"UBSAN_OPTIONS=print_stacktrace=1"}}
	tsan = &flavour{name: "tsan", cc: "gcc",
		flags: []string{"-O1", "-fsanitize=thread"},
		env:   []string{"TSAN_OPTIONS=exitcode=97 halt_on_error=0"}}
	musl = &flavour{name: "musl", cc: "musl-gcc", flags: []string{"-O2"}}
)

var workDir string // for the files of all tests; the function run removes it

func TestMain(m *testing.M) {
	if os.Getenv(asTLSD) != "" {
		standInMain()
	}
	os.Setenv("TLSD_CONFIG", "none") // a daemon of a test does not take the machine's settings
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	workDir, err = os.MkdirTemp("", "plugin-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(workDir)
	// Some hosts run as other users, and must be able to read the directory.
	if err := firstError(os.Chmod(workDir, 0o755), writeTLSDs()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// built has a function for each output. The function builds the output when it is first called, and
// returns the same error to all tests.
var built sync.Map // path of the output -> func() error

// compile returns the path of an output that a compiler makes with these arguments.
func compile(t *testing.T, cc, name string, args ...string) string {
	t.Helper()
	testkit.Tool(t, cc)
	out := filepath.Join(workDir, name)
	return build(t, out, exec.Command(cc, append([]string{"-o", out}, args...)...))
}

// build runs the command that makes the output, once.
func build(t *testing.T, out string, cmd *exec.Cmd) string {
	t.Helper()
	once, _ := built.LoadOrStore(out, sync.OnceValue(func() error {
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
		}
		return nil
	}))
	if err := once.(func() error)(); err != nil {
		t.Fatal(err)
	}
	return out
}

func librarySources(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(sources + "/*.c")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", sources, err)
	}
	return files
}

// library builds the plugin.
func (f *flavour) library(t *testing.T) string {
	t.Helper()
	args := append([]string{"-fPIC", "-shared", "-fvisibility=hidden"}, strict...)
	args = append(args, f.flags...)
	return compile(t, f.cc, "TlsPlugin-"+f.name+".so", append(args, librarySources(t)...)...)
}

// program builds a host.
func (f *flavour) program(t *testing.T, source string) string {
	t.Helper()
	args := append([]string{"-I" + sources}, strict...)
	args = append(args, f.flags...)
	name := strings.TrimSuffix(filepath.Base(source), ".c")
	return compile(t, f.cc, name+"-"+f.name, append(args, source, "-ldl")...)
}

// nowhere returns a new directory without a tlsd. Its path is short enough for a socket in it.
func nowhere(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	return dir
}
