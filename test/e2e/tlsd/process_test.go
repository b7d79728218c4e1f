package tlsd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// tlsd checks the descriptors that it gets from systemd. The workers of tlsd inherit no descriptor.

// If the variable callerEnv is set, the test binary is a caller (callAndPrint). With the value
// "wait", it first waits for a line of standard input. With "stay", it keeps its session until
// standard input ends.
const callerEnv = "TLSD_TEST_CALL"

// callAndPrint sends a line to the socket, and prints the answer. It returns the exit status.
func callAndPrint(path, line string) int {
	conn, err := net.DialTimeout("unix", path, testkit.Patience)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	if os.Getenv(callerEnv) == "wait" {
		bufio.NewReader(os.Stdin).ReadString('\n')
	}
	fmt.Fprintln(conn, line)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(answer)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if os.Getenv(callerEnv) == "stay" {
		io.Copy(io.Discard, os.Stdin)
	}
	return 0
}

// callAs sends a line to the socket from a process with the rights of another user, and returns the
// answer. If who is nil, the process has the test's rights.
func callAs(t *testing.T, who *syscall.Credential, path, line string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", path, line)
	cmd.Env = []string{callerEnv + "=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the process that calls tlsd has failed: %v: %s", err, out)
	}
	return string(out)
}

// startWith starts tlsd with sh, and waits until tlsd is ready. sh runs the text in the parameter
// shell, followed by the command "exec tlsd". tlsd inherits the files as the descriptors 3, 4 and
// so on. When the test ends, tlsd is killed.
func startWith(t *testing.T, files []*os.File, shell string, args ...string) *exec.Cmd {
	t.Helper()
	ready, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command("sh",
		append([]string{"-c", shell + ` exec "$0" "$@"`, binary, "--ready-fd",
			strconv.Itoa(3 + len(files))}, args...)...)
	cmd.ExtraFiles = append(append([]*os.File{}, files...), theirs)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TLSD_CONFIG=none"}
	var log strings.Builder
	cmd.Stderr = &log
	cmd.WaitDelay = testkit.Patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	ready.SetReadDeadline(time.Now().Add(testkit.Patience))
	if got, err := io.ReadAll(ready); string(got) != "\n" || err != nil {
		t.Fatalf("tlsd has not said on --ready-fd that it is ready: %q, %v", got, err)
	}
	return cmd
}

const askBackend = `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`

func TestSystemdPassesTheSocket(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(testkit.Dir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := startWith(t, []*os.File{f}, "LISTEN_FDS=1 LISTEN_PID=$$", "--socket",
		"/nonexistent/s")
	if got := callAs(t, nil, sock, askBackend); !strings.Contains(got, `"result":`) {
		t.Errorf("a call on the socket of systemd is answered with %s", got)
	}
	cmd.Process.Signal(unix.SIGTERM)
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("tlsd, stopped by SIGTERM, ends with %v; want exit status "+
			"0", cmd.ProcessState)
	}
	if _, err := os.Lstat(sock); err != nil {
		t.Errorf("tlsd has removed the socket, which belongs to systemd: %v", err)
	}
}

func TestWhatSystemdPassesIsChecked(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	packets, err := net.ListenUnix("unixpacket",
		&net.UnixAddr{Name: filepath.Join(testkit.Dir(t), "s"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	packetsFile, err := packets.File()
	if err != nil {
		t.Fatal(err)
	}
	defer packetsFile.Close()
	connected, _ := testkit.SocketPair(t, unix.SOCK_STREAM)
	for _, tt := range []struct {
		file  *os.File
		count int
		want  string
	}{
		{tcpFile, 1, "not a Unix stream socket"},
		{packetsFile, 1, "not a Unix stream socket"},
		{w, 1, "is not a listening socket"},
		{connected, 1, "is not a listening socket"},
		{w, 2, "tlsd serves one"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
		cmd := exec.CommandContext(ctx, "sh", "-c",
			fmt.Sprintf(`LISTEN_FDS=%d LISTEN_PID=$$ exec "$0" --socket /nonexistent/s`,
				tt.count), binary)
		cmd.ExtraFiles = []*os.File{tt.file}
		out, _ := cmd.CombinedOutput()
		cancel()
		if code := cmd.ProcessState.ExitCode(); code != 1 ||
			!strings.Contains(string(out), tt.want) {
			t.Errorf("tlsd must refuse a wrong descriptor of systemd: status %d, %s; "+
				"want %s", code, out, tt.want)
		}
	}
}

func TestWorkersInheritNoDescriptor(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sock := filepath.Join(testkit.Dir(t), "s")
	// tlsd gets the pipe's end three times, as the descriptors 3, 4 and 5. In a worker, the
	// worker's own files take the places of 3 and 4 (see workerCommand of internal/supervisor).
	// So only 5 can show that a worker inherits descriptors.
	cmd := startWith(t, []*os.File{w, w, w}, "", "--socket", sock)
	w.Close()

	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	fmt.Fprintln(conn, `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1]}`)
	var answer struct {
		Result struct{ Server struct{ PID int } }
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil ||
		answer.Result.Server.PID == 0 {
		t.Fatalf("the answer to tls.Hello must have the worker's process ID: %+v, "+
			"%v", answer, err)
	}
	// The worker is stopped, so it outlives the daemon. If it had inherited the pipe's end, the
	// pipe would stay open.
	pid := answer.Result.Server.PID
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(pid, unix.SIGKILL)
	cmd.Process.Kill()
	r.SetReadDeadline(time.Now().Add(testkit.Patience / 4))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a worker has inherited the pipe of tlsd: Read gives %v, want EOF", err)
	}
}

func TestAUserCannotStartAWorker(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(binary)
	cmd.Args = []string{"tlsd: worker"}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 2 ||
		!strings.Contains(string(out), "to be started by tlsd only") {
		t.Errorf("a worker that a user starts must refuse, with status 2: status %d, %s",
			code, out)
	}
}

// When the program of a worker begins, the worker has neither the daemon's socket nor the daemon's
// lock. If it had them and outlived the daemon, the next daemon could not start.
func TestNoWorkerEverHasTheDaemonsSocketOrLock(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(testkit.Dir(t), "s")
	cmd := startWith(t, nil, "", "--socket", sock)
	// The fields of a line are: Num RefCount Protocol Flags Type St Inode Path.
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	own := []string{sock + ".lock"} // the files that only the daemon may have
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) == 8 && f[7] == sock {
			own = append(own, "socket:["+f[6]+"]")
		}
	}
	for _, to := range own {
		if len(own) != 2 || !slices.Contains(descriptors(cmd.Process.Pid), to) {
			t.Fatalf("the daemon has %v; want %v, a lock and a socket",
				descriptors(cmd.Process.Pid), own)
		}
	}
	seen := map[int]bool{}
	for sessions := 0; sessions < 20; sessions++ {
		conn, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(testkit.Patience))
		fmt.Fprintln(conn, askBackend)
		answered := make(chan error, 1)
		go func() { _, err := bufio.NewReader(conn).ReadString('\n'); answered <- err }()
		for waits := true; waits; {
			select {
			case err := <-answered:
				if err != nil {
					t.Fatal(err)
				}
				waits = false
			default:
			}
			for _, worker := range testkit.Children(cmd.Process.Pid) {
				pid := worker.PID
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				// Before a new process executes the worker's program, it may still
				// have the daemon's files.
				if string(line) != "tlsd: worker\x00" {
					continue
				}
				seen[pid] = true
				for _, to := range descriptors(pid) {
					if slices.Contains(own, to) {
						t.Fatalf("worker %d has the daemon's %s", pid, to)
					}
				}
			}
		}
		conn.Close()
	}
	if len(seen) < 20 {
		t.Errorf("this test has looked at %d workers; want at least 20", len(seen))
	}
}

// descriptors returns the names of the files that a process has open.
func descriptors(pid int) (to []string) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil {
			to = append(to, name)
		}
	}
	return to
}
