package hostile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Users of root's daemon attack the daemon and each other. The users need no entry in /etc/passwd:
// a user ID is enough for the kernel. An attacker is this test binary, run with the attacker's
// user ID.

const (
	attacker  = 61234
	bystander = 54321
)

// userEnv is the variable that tells the test binary which of userPlays to play. The argument of
// the test binary is then the daemon's socket.
const userEnv = "HOSTILE_TEST_USER"

var userPlays = map[string]func(socket string) error{
	"ask":          playAsk,
	"stop workers": playStopWorkers,
}

// tracerEnv is the variable that tells the test binary to start a daemon and to trace it. The
// arguments of the test binary are then the daemon's command line.
const tracerEnv = "HOSTILE_TEST_TRACER"

func playUser(play, socket string) int {
	if err := userPlays[play](socket); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// needUsers skips a test that is not run by root, because only root can start processes of other
// users. needUsers also makes the test parallel.
func needUsers(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be other users")
	}
	t.Parallel()
}

// asUser returns the command that runs one of userPlays with the user ID uid.
func asUser(ctx context.Context, uid uint32, play, socket string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", socket)
	cmd.Env = []string{userEnv + "=" + play}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// playAsk makes one call and reads the answer.
func playAsk(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	fmt.Fprint(conn, backend)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if !strings.Contains(line, `"result":"openssl"`) {
		return fmt.Errorf("tlsd's answer is %q (%v), want the result openssl", line, err)
	}
	return nil
}

// servesUser makes a call as a user, and returns how long it took.
func servesUser(t *testing.T, d *testd.Daemon, uid uint32) time.Duration {
	t.Helper()
	begin := time.Now()
	if out, err := asUser(testkit.Bounded(t), uid, "ask",
		d.Socket).CombinedOutput(); err != nil {
		t.Fatalf("user %d is not served: %v: %s", uid, err, out)
	}
	return time.Since(begin)
}

// playStopWorkers opens sessions all the time. Meanwhile it sends SIGSTOP to the process IDs around
// the newest one, to stop its workers while they start.
func playStopWorkers(socket string) error {
	go func() {
		for {
			if conn, err := net.Dial("unix", socket); err == nil {
				fmt.Fprint(conn, backend)
				conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
				conn.Read(make([]byte, 1))
				conn.Close()
			}
		}
	}()
	for {
		text, err := os.ReadFile("/proc/loadavg") // ends with the newest pid
		if err != nil {
			return err
		}
		var last int
		fmt.Sscan(string(text[bytes.LastIndexByte(text, ' ')+1:]), &last)
		for range 200 {
			for next := -8; next < 8; next++ {
				unix.Kill(last+next, unix.SIGSTOP)
			}
		}
	}
}

// A user can stop a worker as soon as the worker has the user's ID. At whatever moment the user
// does so, root and another user are still served, and the daemon stops without an error.
func TestAUserWhoStopsItsWorkersHoldsUpNobody(t *testing.T) {
	needUsers(t)
	// The modes are tested one after another. An attacker keeps two processors busy, and three
	// attackers at once would only slow down the machine.
	for _, mode := range [][]string{{}, {"--spare=0"}, {"--isolation=shared", "--workers=1"}} {
		t.Run(strings.Join(mode, " "), func(t *testing.T) { stopWorkersOf(t, mode) })
	}
}

func stopWorkersOf(t *testing.T, mode []string) {
	// When the daemon ends, it waits for sessions. The session of a stopped worker does not
	// end, so this wait must be short.
	d := testd.Start(t, append([]string{fmt.Sprintf("--allow-uid=%d,%d", attacker, bystander),
		"--drain-timeout=1s"}, mode...)...)
	attack := asUser(context.Background(), attacker, "stop workers", d.Socket)
	ended := start(t, attack)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	// The attacker may stop itself, because its threads are among the newest IDs.
	go func() {
		for {
			select {
			case <-done:
				return
			case <-ended:
				return
			case <-time.After(time.Millisecond):
				attack.Process.Signal(unix.SIGCONT)
			}
		}
	}()
	attacked := func() bool {
		return strings.Contains(d.Log(t), fmt.Sprintf(`"uid":%d`, attacker))
	}
	slowest, ctx := time.Duration(0), testkit.Bounded(t)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end) || !attacked(); {
		serves(t, d)
		slowest = max(slowest, servesUser(t, d, bystander))
		if ctx.Err() != nil {
			t.Fatal("the attacker got no session, so the test shows nothing")
		}
	}
	t.Logf("another user's session has started within %v", slowest)
	testkit.Must(t, d.Stop(t)) // while the attack goes on
}

// playTracer runs a daemon, and traces it and all its children.
func playTracer(line []string) error {
	runtime.LockOSThread() // a tracer is one thread, not a process
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = []string{}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
		unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	for set := false; ; {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if !ws.Stopped() {
			if pid == cmd.Process.Pid {
				return nil
			}
			continue
		}
		if !set { // the first stop, after the daemon's exec
			if err := unix.PtraceSetOptions(pid, options); err != nil {
				return err
			}
			set = true
		}
		sig := ws.StopSignal()
		// Trace events and the first stop of a new thread must not reach the daemon.
		if sig == unix.SIGTRAP || sig == unix.SIGSTOP {
			sig = 0
		}
		unix.PtraceCont(pid, int(sig)) // fails if the process was killed
	}
}

// A traced worker serves nobody, because the tracer could read keys in the worker's memory. With
// --confine=off a traced worker serves, so that it can be debugged.
func TestAWorkerThatIsTracedServesNobody(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(testkit.Dir(t), "s")
	for name, c := range map[string]struct {
		flag string
		want string
	}{
		"confined":     {"--confine=auto", "could not serve: process "},
		"not confined": {"--confine=off", `"result":"openssl"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe", testd.Exe(t, "tlsd"), "--socket",
				socket+name, c.flag)
			cmd.Env = []string{tracerEnv + "=1"}
			var log bytes.Buffer
			cmd.Stderr, cmd.Stdout = &log, &log
			cmd.WaitDelay = testkit.Patience
			ended := start(t, cmd)
			var conn net.Conn
			testkit.Until(t, "the daemon listens", func() (ok bool) {
				var err error
				conn, err = net.Dial("unix", socket+name)
				return err == nil
			})
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(testkit.Patience))
			fmt.Fprint(conn, backend)
			line, err := bufio.NewReader(conn).ReadString('\n')
			cmd.Process.Kill()
			<-ended
			if !strings.Contains(line, c.want) {
				t.Errorf("tlsd's answer is %q (%v), want %s; the log:\n%s", line,
					err, c.want, log.String())
			}
		})
	}
}
