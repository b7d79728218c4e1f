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
			t.Fatal(got)
		}
		c.told(tt.want)
		f := d.logged("worker ended unexpectedly", n+1)
		if f["cause"].(string)+" in tls.Read" != tt.want || f["operation"] != "tls.Read" ||
			f["library"] != "OpenSSL 3.9" || f["uptime"].(time.Duration) <= 0 {
			t.Errorf("%s: the log says %v", tt.how, f)
		}
	}
	if other.pid() != pid {
		t.Error("another session has changed its worker")
	}
}

// A user may send its worker any signal. Real-time signals have no names.
func TestASignalWithoutANameIsToldByItsNumber(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	testkit.Must(t, unix.Kill(c.pid(), 34)) // the Go runtime leaves this one to the C library
	c.told("died of signal 34")
	if f := d.logged("worker ended unexpectedly", 1); f["exit"] != "signal 34" {
		t.Errorf("the log says %v", f)
	}
}

func TestACallInTheLibraryIsNamedBeforeAWaitingCall(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.say("inside")
	c.told("died of a panic in tls.Write")
}

// The dump is larger than a pipe. If nobody read it, the worker would hang and not die.
func TestDumpOfABigWorkerIsReadToItsEndAndItsHeadKept(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.say("crash in a crowd")
	c.told("died of SIGSEGV in tls.Read")
	f := d.logged("worker ended unexpectedly", 1)
	if text := f["stderr"].(string); len(text) != headBytes ||
		!strings.HasPrefix(text, "SIGSEGV: segmentation violation\n") ||
		f["exit"] != "exit status 2" {
		t.Errorf("%d bytes of the dump are kept, exit %v: %.200s", len(text),
			f["exit"], text)
	}
}

func TestNoLineFallsIntoTheMiddleOfAMessage(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	c := d.dial()
	c.say("half")
	if all, _ := io.ReadAll(c.in); string(all) != `{"jsonrpc":"2.0","id":1,"res` {
		t.Errorf("the caller reads %q", all)
	}
	c = d.dial()
	c.say("whole")
	if got := c.hear(); got != "whole" {
		t.Error(got)
	}
	c.told("died of a panic")
}

func TestAFullCallerDoesNotHoldUpTheSupervisor(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	full, fine := d.dial(), d.dial()
	fine.pid()
	pid := full.pid()
	for range 20000 { // this caller reads no answers, so its worker hangs in a write
		full.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := fmt.Fprintln(full, "who"); err != nil {
			break
		}
	}
	unix.Kill(pid, unix.SIGKILL)
	d.logged("session lost", 1)
	fine.pid()
}

func TestSessionsOfASharedWorkerAreToldTheSame(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Shared = true })
	var all []*caller
	for range 5 {
		all = append(all, d.dial())
		all[len(all)-1].pid()
	}
	all[1].say("bye") // another session gets its slot
	all[1].cut()
	d.logged("session ended", 1)
	all[1] = d.dial()
	all[1].pid()
	all[0].say("kill")
	if got := all[0].hear(); got != "now" {
		t.Error(got)
	}
	all[0].told("was killed (SIGKILL) in tls.Read")
	for _, c := range all[1:] {
		c.told("was killed (SIGKILL)")
	}
}

func TestNoConnectionIsKeptBeyondItsSession(t *testing.T) {
	// Not parallel: it counts the process's descriptors.
	d := startDaemon(t, workerPlay{}, func(c *Config) { c.Shared = true })
	sockets := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		testkit.Must(t, err)
		return len(entries)
	}
	c := d.dial()
	c.pid()
	before := sockets()
	for range 5 {
		c := d.dial()
		c.pid()
		c.say("bye")
		c.cut()
		c.Close()
	}
	d.logged("session ended", 5)
	d.until("nothing is left open", func() bool { return sockets() <= before })
}

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
			t.Errorf("%+v, %q: %s; want %s", tt.end, strings.TrimSpace(tt.stderr), got,
				tt.want)
		}
	}
}
