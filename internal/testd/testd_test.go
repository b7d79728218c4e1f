package testd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

func TestMain(m *testing.M) { Main(m) }

// A daemon of the tests answers calls. After Stop, none of its processes is left.
func TestADaemonServesAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	d := Start(t)
	c := d.Dial(t)
	if b, err := c.Backend(t.Context()); err != nil || b == "" {
		t.Errorf("tls.Backend returns %q, %v; want a name", b, err)
	}
	// The daemon has at least two processes: the supervisor, and the worker of this session.
	if got := d.Processes(); len(got) < 2 || got[0] != d.PID && got[1] != d.PID &&
		len(got) == 2 {
		t.Errorf("processes %v: want that of the supervisor (%d) and a worker", got, d.PID)
	}
	c.Close()
	if err := d.Stop(t); err != nil {
		t.Error(err)
	}
	if got := d.Processes(); len(got) != 0 {
		t.Errorf("processes %v are left", got)
	}
}

// TLSD_TEST_OPENSSL names the version of OpenSSL that a run of the tests is for. A daemon of these
// tests must load that version, and no other by mistake.
func TestADaemonHasTheLibraryOfThisRun(t *testing.T) {
	t.Parallel()
	want := os.Getenv("TLSD_TEST_OPENSSL")
	if want == "" {
		t.Skip("TLSD_TEST_OPENSSL does not say which version this run is for")
	}
	c := Start(t).Dial(t)
	got, err := c.Version(t.Context(), 0)
	if err != nil || !strings.HasPrefix(got, "OpenSSL "+want) {
		t.Errorf("tls.Version: %q, %v; this run is for OpenSSL %s", got, err, want)
	}
	info, err := c.Info(t.Context())
	if err != nil || filepath.Dir(info.Libssl.Libcrypto) != filepath.Dir(info.Libssl.Path) ||
		info.Libssl.Path == "" {
		t.Errorf("tls.Info: %+v, %v; want libssl and libcrypto of one folder",
			info.Libssl, err)
	}
}

// A daemon ends with the test process, even if the process has no time for cleanups: after a panic,
// or when the time of the tests is over.
func TestADaemonDoesNotOutliveTheTestProcess(t *testing.T) {
	t.Parallel()
	const variable = "TESTD_TEST_DIES"
	if os.Getenv(variable) != "" {
		d := Start(t)
		d.Dial(t) // so that there is a worker
		fmt.Println("pids", d.Processes())
		os.Exit(3)
	}
	dir := testkit.Dir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestADaemonDoesNotOutliveTheTestProcess$")
	cmd.Env = append(os.Environ(), variable+"=1", "TMPDIR="+dir)
	out, err := cmd.Output()
	_, pids, found := strings.Cut(string(out), "pids [")
	if !found {
		t.Fatalf("the test process has not printed the pids of its daemon: %v: %s", err,
			out)
	}
	for _, pid := range strings.Fields(strings.TrimRight(pids, "]\n")) {
		testkit.Until(t, "process "+pid+" is gone", func() bool {
			exe, err := os.Readlink("/proc/" + pid + "/exe")
			return err != nil || !strings.HasPrefix(exe, dir)
		})
	}
}

// testkit.Port returns a port on which nobody listens. When the test listens on the port, the
// helpers Listening and AwaitListener notice it.
func TestAPortIsRefusedUntilSomebodyListens(t *testing.T) {
	t.Parallel()
	port := testkit.Port(t)
	addr := testkit.Addr(port)
	if conn, err := net.DialTimeout("tcp", addr, time.Second); !errors.Is(
		err, syscall.ECONNREFUSED) {
		if err == nil {
			conn.Close()
		}
		t.Errorf("connect to a port on which nobody listens: %v, want %v", err,
			syscall.ECONNREFUSED)
	}
	if Listening(t, port) {
		t.Errorf("Listening(%d) is true, although nobody listens on the port", port)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	AwaitListener(t, port)
}

// Plugin, Domhost and Exe build their programs. A failure to build ends the test.
func TestPluginAndDomhostAreBuilt(t *testing.T) {
	t.Parallel()
	for _, file := range []string{Plugin(t), Domhost(t), Exe(t, "tlsshim")} {
		if _, err := os.Stat(file); err != nil {
			t.Error("the program must exist: ", err)
		}
	}
}

// Restart ends a daemon with signals, and starts another on the same socket. It returns an error if
// the daemon was killed.
func TestADaemonIsStartedAgainOnItsSocket(t *testing.T) {
	t.Parallel()
	d := Start(t)
	for _, signals := range [][]syscall.Signal{{syscall.SIGTERM}, {syscall.SIGKILL}} {
		before := d.PID
		err := d.Restart(t, signals, "--isolation=shared")
		if killed := signals[0] == syscall.SIGKILL; killed != (err != nil) {
			t.Errorf("after %v, the daemon ends with %v; want an error after SIGKILL "+
				"only", signals, err)
		}
		c := d.Dial(t)
		if _, err := c.Backend(t.Context()); err != nil || d.PID == before {
			t.Errorf("after %v and a restart, the process ID is %d (before: %d), and "+
				"tls.Backend returns %v; want a new ID and no error", signals,
				d.PID, before, err)
		}
		c.Close()
	}
}
