package supervisor

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/handoff"
	"tlsd/internal/testkit"
)

// If a worker dies, its caller is told how it died and which call was running. Other sessions go
// on.
func TestCallerIsToldWhatItsWorkerDiedOf(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{Report: handoff.Ready{Backend: "openssl",
		Version: "OpenSSL 3.9"}}, nil)
	other := d.dial()
	pid := other.pid()
	for n, tt := range []struct{ how, want string }{
		{"segv", "died of SIGSEGV in tls.Read"},
		{"abort", "died of SIGABRT in tls.Read"},
		{"kill", "was killed (SIGKILL) in tls.Read"},
		{"exit", "exited with status 77 in tls.Read"},
	} {
		c := d.dial()
		if got := c.ask(tt.how); got != "now" {
			t.Fatalf("the worker answers %q, want now", got)
		}
		c.told(tt.want)
		f := d.logged("worker ended unexpectedly", n+1)
		uptime, _ := f["uptime"].(time.Duration)
		if fmt.Sprint(f["cause"])+" in tls.Read" != tt.want ||
			f["operation"] != "tls.Read" || f["library"] != "OpenSSL 3.9" ||
			uptime <= 0 {
			t.Errorf("after the death %q the log says %v; want the cause, the "+
				"operation tls.Read, the library and an uptime", tt.how, f)
		}
	}
	if other.pid() != pid {
		t.Error("another session has got another worker")
	}
}

// A user may kill its worker with any signal. If the signal has no name, the caller is told the
// signal's number. Real-time signals have no names.
func TestASignalWithoutANameIsToldByItsNumber(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	// The Go runtime does not catch signal 34, so the signal kills the worker.
	testkit.Must(t, unix.Kill(c.pid(), 34))
	c.told("died of signal 34")
	if f := d.logged("worker ended unexpectedly", 1); f["exit"] != "signal 34" {
		t.Errorf("the log says %v; want the exit \"signal 34\"", f)
	}
}

// If the worker dies while one call is in the library and another waits, the caller is told the
// name of the call in the library, because the worker has died there.
func TestACallInTheLibraryIsNamedBeforeAWaitingCall(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.say("inside")
	c.told("died of a panic in tls.Write")
}

// A crash dump can be larger than the pipe to the supervisor. The supervisor reads the dump to
// its end, because the worker would hang otherwise. It keeps only the first headBytes bytes.
func TestDumpOfABigWorkerIsReadToItsEndAndItsHeadKept(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.say("crash in a crowd")
	c.told("died of SIGSEGV in tls.Read")
	f := d.logged("worker ended unexpectedly", 1)
	if text, _ := f["stderr"].(string); len(text) != headBytes ||
		!strings.HasPrefix(text, "SIGSEGV: segmentation violation\n") ||
		f["exit"] != "exit status 2" {
		t.Errorf("%d bytes of the dump are kept, want %d; exit %v, want exit status 2; "+
			"the dump begins with %.200s", len(text), headBytes, f["exit"], text)
	}
}

// If a worker dies while it writes a message, the caller gets no line about the loss: the line
// would continue the half message. If the message is whole, the caller gets the line.
func TestNoLineFallsIntoTheMiddleOfAMessage(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.say("half")
	if all, _ := io.ReadAll(c.in); string(all) != `{"jsonrpc":"2.0","id":1,"res` {
		t.Errorf("the caller reads %q; want only the half message", all)
	}
	c = d.dial()
	c.say("whole")
	if got := c.hear(); got != "whole" {
		t.Errorf("the caller reads %q, want whole", got)
	}
	c.told("died of a panic")
}

// A caller that reads nothing cannot be told that its worker has died. The supervisor does not wait
// for this caller, and serves other callers.
func TestAFullCallerDoesNotHoldUpTheSupervisor(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	full, fine := d.dial(), d.dial()
	fine.pid()
	full.say("fill")
	d.logged("session lost", 1)
	fine.pid()
}

// All sessions of a shared worker are told how the worker died. Only the session whose call was
// running is told the name of the call.
func TestSessionsOfASharedWorkerAreToldTheSame(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Shared = true })
	var all []*caller
	for range 5 {
		all = append(all, d.dial())
		all[len(all)-1].pid()
	}
	all[1].say("bye") // the next session gets the slot of this one
	all[1].cut()
	d.logged("session ended", 1)
	all[1] = d.dial()
	all[1].pid()
	all[0].say("kill")
	if got := all[0].hear(); got != "now" {
		t.Errorf("the worker answers %q, want now", got)
	}
	all[0].told("was killed (SIGKILL) in tls.Read")
	for _, c := range all[1:] {
		c.told("was killed (SIGKILL)")
	}
}

// The supervisor keeps a copy of a caller's connection only until the session ends.
func TestNoConnectionIsKeptBeyondItsSession(t *testing.T) {
	// Not parallel: it counts the process's descriptors.
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Shared = true })
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		testkit.Must(t, err)
		return len(entries)
	}
	c := d.dial()
	c.pid()
	before := descriptors()
	for range 5 {
		c := d.dial()
		c.pid()
		c.say("bye")
		c.cut()
		c.Close()
	}
	d.logged("session ended", 5)
	d.until("the descriptors of ended sessions are closed",
		func() bool { return descriptors() <= before })
}

// The caller is told why its worker has died. The supervisor finds the cause in the worker's exit
// status or signal, and in the text that the worker has written to its standard error.
func TestCause(t *testing.T) {
	t.Parallel()
	const segv = "SIGSEGV: segmentation violation\nPC=0x7f m=3 sigcode=1 addr=0x0\n"
	const runtimeSegv = "fatal error: unexpected signal during runtime execution\n" +
		"[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x7f]\n"
	for _, tt := range []struct {
		end    exit
		stderr string
		want   string
	}{
		{exit{status: 2}, segv, "died of SIGSEGV"},
		{exit{status: 2}, "free(): invalid pointer\nSIGABRT: abort\n", "died of SIGABRT"},
		{exit{status: 2}, runtimeSegv, "died of SIGSEGV"},
		{exit{status: 2}, "SIGNAL: not one\n", "exited with status 2"},
		{exit{status: 2}, "x SIGSEGV: not at the beginning\n", "exited with status 2"},
		{exit{status: 2}, "fatal error: all goroutines are asleep - deadlock!\n",
			"died of a fatal error of its runtime"},
		{exit{status: 2}, "runtime: out of memory: cannot allocate 4194304-byte block " +
			"(67108864 in use)\nfatal error: out of memory\n", "ran out of memory"},
		{exit{status: 2}, "fatal error: runtime: out of memory\n", "ran out of memory"},
		{exit{status: 2}, "fatal error: runtime: cannot allocate memory\n",
			"ran out of memory"},
		{exit{status: 2}, "panic: oh\n", "died of a panic"},
		{exit{status: 1}, segv, "exited with status 1"},
		{exit{}, "", "exited with status 0"},
		{exit{signal: unix.SIGBUS}, "", "died of SIGBUS"},
		{exit{signal: unix.SIGBUS}, segv, "died of SIGSEGV"}, // SIGBUS came during the dump
		{exit{signal: unix.SIGKILL}, "", "was killed (SIGKILL)"},
	} {
		if got := tt.end.cause(tt.stderr); got != tt.want {
			t.Errorf("the cause of %+v with the stderr %q is %q; want %q", tt.end,
				strings.TrimSpace(tt.stderr), got, tt.want)
		}
	}
}
