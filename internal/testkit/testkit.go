// Package testkit has what the tests of many packages need: a limit for tests that hang, ways to
// wait, the search for the machine's tools, and servers as peers. It imports only internal/sockets
// of this project, so the tests of every other package may import testkit.
package testkit

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Patience is how long a test waits for an event that must come. Only a test that hangs waits so
// long.
const Patience = 5 * time.Minute

// Must ends the test if there is an error.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Bounded is a context that ends with the test, or after Patience.
func Bounded(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	tb.Cleanup(cancel)
	return ctx
}

// A Test is a test of any kind: a testing.TB, or a script of testscript.
type Test interface {
	Fatalf(format string, args ...any)
}

// Until calls the function ok every few milliseconds, until ok returns true. After Patience it ends
// the test with an error that names the event. Use Until only for events that give no signal.
func Until(t Test, event string, ok func() bool) {
	if h, is := t.(testing.TB); is {
		h.Helper()
	}
	for end := time.Now().Add(Patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", Patience, event)
		}
	}
}

// Receive waits for a value from a channel, or until the channel is closed. After Patience it ends
// the test with an error that names the event.
func Receive[V any](t Test, from <-chan V, event string) (v V) {
	if h, is := t.(testing.TB); is {
		h.Helper()
	}
	select {
	case v = <-from:
	case <-time.After(Patience):
		t.Fatalf("not within %v: %s", Patience, event)
	}
	return v
}

// Dir makes a folder. Every user may enter it, and its path is short enough for a socket. The end
// of the test removes the folder.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "tlsd-")
	Must(tb, err)
	tb.Cleanup(func() { os.RemoveAll(dir) })
	Must(tb, os.Chmod(dir, 0o755))
	return dir
}

// Tool finds a program of the machine in PATH. If the program is missing, Tool calls Missing.
func Tool(tb testing.TB, name string) (path string) {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, "%s is not installed", name)
	}
	return path
}

// Missing skips a test, because the machine lacks what the test needs. With TLSD_TEST_STRICT=1,
// which make test sets, the test fails instead.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("TLSD_TEST_STRICT") == "1" {
		tb.Fatalf("TLSD_TEST_STRICT=1 allows no skipping: "+format, args...)
	}
	tb.Skipf(format, args...)
}
