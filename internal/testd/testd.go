// Package testd builds the programs of this project for tests, and runs the daemon as users do: as
// a process, with its real flags, on a socket of its own.
//
//	func TestMain(m *testing.M) { testd.Main(m) }
//
//	func TestX(t *testing.T) {
//		d := testd.Start(t, "--handshake-timeout=300ms")
//		c := d.Dial(t)                       // a session
//		h, err := c.NewClient(t.Context(), "localhost", port)
//		…
//	}                                        // stops d, and checks the exit status
//
// # Promises
//
//   - A program is built when the first test asks for it, with the flags of the Makefile. Main
//     removes the program after the last test. If TLSD_TEST_BIN names a folder, the programs there
//     are used instead. They must be newer than their sources.
//   - If TLSD_TEST_LIBSSL is set, a daemon loads the libssl of this path. But if the test gives a
//     flag --libssl, the flag decides.
//   - A daemon does not get the tester's settings: TLSD_…, SSL_CERT_…, OPENSSL_CONF, LISTEN_…,
//     NOTIFY_SOCKET. It reads no configuration file of the machine.
//   - At the end of the test, SIGTERM stops the daemon. The test fails if the daemon does not exit
//     with 0 within stopTime (see MayFail), or if a process of the daemon still runs.
//   - On Linux, a daemon does not outlive the test process, however the test process ends.
//   - If a test has failed, the log of its daemon is shown.
//
// If something fails, the functions end the test. Only Spawn and WriteProgram return the error.
// Stop and Restart return how the daemon exited. All functions but Restart are safe for concurrent
// use.
package testd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

const (
	startTime = 2 * time.Minute // until the socket exists
	stopTime  = 2 * time.Minute // from SIGTERM to the exit
)

// A Daemon is a running tlsd.
type Daemon struct {
	Socket string // path of its socket
	PID    int    // of the supervisor

	exe     string // a hard link to tlsd, for this daemon alone; see Processes
	log     string // file
	options Options
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the supervisor has exited and err has been set
	err     error
	stop    sync.Once
}

// Options say how a daemon is started.
type Options struct {
	Flags []string
	Env   []string // NAME=value, added to the environment
	// UID is the number of the daemon's user and of its group. 0: the tester's own user. Only
	// root can run a daemon as another user. That user must be able to read the files that the
	// test names.
	UID uint32
	// Under is a command, such as a wrapper, that executes the daemon. The daemon's command
	// line follows as further arguments. Empty: the daemon is executed directly.
	Under []string
	// Stderr, if not nil, becomes the daemon's standard error. Then Log does not have the log.
	Stderr *os.File
	// If MayFail is set, the test does not fail because of the daemon's exit status.
	MayFail bool
}

// patient has flags for all daemons, with long timeouts. tlsd's default timeouts of 10 s and 30 s
// would end calls, and the watchdog would kill workers, that only a busy machine makes slow.
// Options.Flags come later on the command line, so they can replace these flags.
var patient = []string{
	"--watchdog=" + testkit.Patience.String(),
	"--connect-timeout=" + testkit.Patience.String(),
	"--handshake-timeout=" + testkit.Patience.String(),
	"--accept-handshake-timeout=" + testkit.Patience.String(),
	"--write-timeout=" + testkit.Patience.String(),
}

// Start starts a daemon with --socket and these flags. It returns when the daemon accepts
// connections.
func Start(tb testing.TB, flags ...string) *Daemon {
	tb.Helper()
	return StartWith(tb, Options{Flags: flags})
}

// StartWith is Start with more options.
func StartWith(tb testing.TB, o Options) *Daemon {
	tb.Helper()
	dir := testkit.Dir(tb)
	if o.UID != 0 {
		err := os.Chown(dir, int(o.UID), int(o.UID))
		// EINVAL: the test runs as root of a user namespace that lacks this user
		// (chown(2)).
		if errors.Is(err, unix.EINVAL) {
			tb.Skipf("there is no user %d in this user namespace", o.UID)
		}
		testkit.Must(tb, err)
	}
	d := &Daemon{
		Socket:  filepath.Join(dir, "tlsd.sock"),
		exe:     filepath.Join(dir, "tlsd"),
		log:     filepath.Join(dir, "log"),
		options: o,
	}
	testkit.Must(tb, os.Link(Exe(tb, "tlsd"), d.exe))
	tb.Cleanup(func() {
		if d.exited == nil {
			return // launch has failed
		}
		err := d.Stop(tb)
		if err != nil && !o.MayFail {
			tb.Errorf("tlsd, stopped by SIGTERM: %v", err)
		}
		if tb.Failed() {
			tb.Logf("the log of tlsd:\n%s", d.Log(tb))
		}
	})
	d.launch(tb)
	return d
}

// launch starts the process and waits until it listens.
func (d *Daemon) launch(tb testing.TB) {
	tb.Helper()
	o := d.options
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	testkit.Must(tb, err)
	defer log.Close()

	ready, readySide, err := os.Pipe()
	testkit.Must(tb, err)
	defer ready.Close()
	defer readySide.Close()

	line := slices.Concat(o.Under, []string{d.exe, "--socket=" + d.Socket, "--ready-fd=3"},
		patient)
	if lib := os.Getenv("TLSD_TEST_LIBSSL"); lib != "" {
		line = append(line, "--libssl="+lib)
	}
	line = append(line, o.Flags...)
	d.cmd = exec.Command(line[0], line[1:]...)
	d.cmd.ExtraFiles = []*os.File{readySide}
	d.cmd.Dir = "/"
	d.cmd.Env = append(environment(), o.Env...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if o.Stderr != nil {
		d.cmd.Stderr = o.Stderr
	}
	// The daemon has its own process group, so Ctrl-C on the terminal does not reach it. Ctrl-C
	// ends this process, and then the kernel ends the daemon (see Spawn).
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if o.UID != 0 {
		d.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: o.UID, Gid: o.UID}
	}
	exited := make(chan struct{})
	testkit.Must(tb, Spawn(d.cmd, func() {
		d.err = d.cmd.Wait()
		close(exited)
	}))
	d.exited = exited
	readySide.Close() // if the daemon exits, no writing end is left, and await fails
	d.PID = d.cmd.Process.Pid
	d.await(tb, ready)
}

// Spawn starts cmd. On Linux, the kernel kills cmd if this process dies first: by a panic, a test
// that runs out of time, or SIGKILL. When cmd runs, Spawn calls waitEnd on a new goroutine. waitEnd
// must return when the process of cmd has ended, and not before.
func Spawn(cmd *exec.Cmd, waitEnd func()) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	dieWithParent(cmd.SysProcAttr)
	started := make(chan error, 1)
	go func() {
		// The kernel sends the signal when the thread that started the process ends
		// (PR_SET_PDEATHSIG(2const)). So this thread must live until waitEnd returns.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			waitEnd()
		}
	}()
	return <-started
}

// await waits until the daemon says that it listens.
func (d *Daemon) await(tb testing.TB, ready *os.File) {
	tb.Helper()
	ready.SetReadDeadline(time.Now().Add(startTime))
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		select {
		case <-d.exited:
			tb.Fatalf("tlsd ended at its start: %v\n%s", d.err, d.Log(tb))
		case <-time.After(time.Second):
			tb.Fatalf("tlsd does not say that it listens: %v\n%s", err, d.Log(tb))
		}
	}
}

// Dial opens a session, which is closed at the end of the test, before the daemon stops. If the
// daemon does not answer within the timeout of client.Dial, the machine may be busy, and Dial tries
// again.
func (d *Daemon) Dial(tb testing.TB) *client.Client {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	c, err := client.Dial(ctx, d.Socket)
	for errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		c, err = client.Dial(ctx, d.Socket)
	}
	testkit.Must(tb, err)
	tb.Cleanup(func() { c.Close() })
	return c
}

// Log is the daemon's standard output and error so far.
func (d *Daemon) Log(tb testing.TB) string {
	tb.Helper()
	return d.LogFrom(tb, 0)
}

// LogFrom is the log from the offset skip on. A test that follows a long log need not read the
// whole log each time.
func (d *Daemon) LogFrom(tb testing.TB, skip int) string {
	tb.Helper()
	log, err := os.Open(d.log)
	testkit.Must(tb, err)
	defer log.Close()
	_, err = log.Seek(int64(skip), io.SeekStart)
	testkit.Must(tb, err)
	b, err := io.ReadAll(log)
	testkit.Must(tb, err)
	return string(b)
}

// CommandLine is the command line of the daemon, with spaces between the arguments.
func (d *Daemon) CommandLine() string { return strings.Join(d.cmd.Args, " ") }

// Exited is closed when the daemon has ended.
func (d *Daemon) Exited() <-chan struct{} { return d.exited }

// Stop ends the daemon with SIGTERM, unless the daemon has ended, and waits for the end. The test
// fails if the daemon hangs, or if a process of it still runs. The error says how the daemon
// exited. A second call only returns the error again.
func (d *Daemon) Stop(tb testing.TB) error {
	tb.Helper()
	d.stop.Do(func() { d.end(tb, syscall.SIGTERM) })
	<-d.exited
	return d.err
}

// Restart sends the daemon the signals, and waits for the end, as Stop does. Then it starts the
// daemon again on the same socket. If flags are given, they replace the old flags. The error says
// how the daemon exited. No other method may run at the same time.
func (d *Daemon) Restart(tb testing.TB, signals []syscall.Signal, flags ...string) error {
	tb.Helper()
	d.end(tb, signals...)
	err := d.err
	if len(flags) > 0 {
		d.options.Flags = flags
	}
	d.launch(tb)
	return err
}

// end sends the signals and waits until all processes are gone.
func (d *Daemon) end(tb testing.TB, signals ...syscall.Signal) {
	tb.Helper()
	for _, sig := range signals {
		_ = d.cmd.Process.Signal(sig) // fails if the daemon has ended
	}
	select {
	case <-d.exited:
	case <-time.After(stopTime):
		tb.Errorf("tlsd (pid %d) did not end within %v after %v", d.PID, stopTime, signals)
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // writes a dump to the log
		select {
		case <-d.exited:
		case <-time.After(10 * time.Second):
			_ = d.cmd.Process.Kill()
			<-d.exited
		}
	}
	// When the supervisor has exited, the workers end, too, but some may need a moment.
	for deadline := time.Now().Add(stopTime); ; time.Sleep(5 * time.Millisecond) {
		left := d.Processes()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Errorf("processes of tlsd are left: %v", left)
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return
		}
	}
}

// Processes lists the pids of the living processes: the daemon and its workers. They are the
// processes that execute d.exe.
func (d *Daemon) Processes() []int {
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		// Readlink fails if the process has ended, or if this user may not look into it.
		exe, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != d.exe {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/exe", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// environment is the environment of this process, without the variables that would change a
// daemon's behaviour. TLSD_CONFIG=none makes the daemon read no configuration file.
func environment() []string {
	clean := slices.DeleteFunc(os.Environ(), func(v string) bool {
		for _, p := range []string{"TLSD_", "SSL_CERT_", "OPENSSL_CONF=", "LISTEN_",
			"NOTIFY_SOCKET="} {
			if strings.HasPrefix(v, p) {
				return true
			}
		}
		return false
	})
	return append(clean, "TLSD_CONFIG=none")
}
