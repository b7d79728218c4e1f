//go:build systemd || packages

package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// A machine is a set of namespaces, with systemd as the first process. It has a root file system of
// its own, the users alice and bob, and no network but its loopback.
type machine struct {
	t   *testing.T
	pid int // of systemd, in the namespace of this test
}

// boot starts a machine, which ends with the test. Its root file system shows the folder lower, and
// over it the files of the folder add. If this host allows no machine, boot skips the test.
func boot(t *testing.T, lower, add string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: systemd as the first process of a namespace needs root")
	}
	for _, tool := range []string{"unshare", "nsenter", "ip", "pivot_root"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(lower, "usr/lib/systemd/systemd")); err != nil {
		t.Skipf("SKIPPED: there is no systemd: %v", err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts",
		"--ipc", "--net", "--cgroup",
		"sh", "testdata/boot.sh", t.TempDir(), lower, add)
	cmd.Stderr = &stderr
	group := cgroup(t)
	// Even if this process is killed, Pdeathsig ends the machine. The kernel sends the signal
	// as soon as the thread ends that has started the machine (PR_SET_PDEATHSIG(2const)). So
	// this thread must live as long as the machine.
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()),
		Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Skipf("SKIPPED: no process can be started in a cgroup of its own: %v", err)
	}
	over := false
	t.Cleanup(func() {
		if !over {
			cmd.Process.Kill()
			<-ended
		}
	})
	m := &machine{t: t}
	for deadline := time.Now().Add(testkit.Patience); ; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			over = true
			if cmd.ProcessState.ExitCode() == 77 {
				t.Skipf("SKIPPED: %s", &stderr)
			}
			t.Fatalf("the machine ended while it booted: %v\n%s", err, &stderr)
		default:
		}
		if m.pid == 0 {
			m.pid = childOf(cmd.Process.Pid)
		} else if out, _ := m.command("root", "systemctl",
			"is-system-running").Output(); strings.TrimSpace(string(out)) == "running" {
			return m
		} else if time.Now().After(deadline) {
			t.Fatalf("the machine has not booted: systemctl says %q, want running\n"+
				"%s%s", out, &stderr, m.try("systemctl", "--failed", "--no-pager"))
		}
	}
}

// cgroup makes a cgroup, to be the root cgroup of the machine, and removes it after the test.
func cgroup(t *testing.T) *os.File {
	t.Helper()
	var top string
	mounts := readFile(t, "/proc/self/mountinfo")
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 {
			top = f[4]
		}
	}
	if top == "" {
		t.Skip("SKIPPED: no cgroup2 is mounted")
	}
	dir, err := os.MkdirTemp(top, "tlsd-test-")
	if err != nil {
		t.Skipf("SKIPPED: no cgroup can be made: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // users must reach their cgroups in it
		t.Fatal(err)
	}
	// The cleanup tries again and again, because the machine's processes may take time to end.
	t.Cleanup(func() {
		deadline := time.Now().Add(testkit.Patience)
		for removeTree(dir) != nil && time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond)
		}
	})
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// removeTree removes a cgroup and the cgroups in it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	return os.Remove(dir)
}

// command returns a command that runs in the machine, as one of its users.
func (m *machine) command(user string, args ...string) *exec.Cmd {
	enter := []string{"-t", strconv.Itoa(m.pid), "-m", "-p", "-n", "-u", "-i", "-C", "--"}
	if user != "root" {
		enter = append(enter, "runuser", "-u", user, "--")
	}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	return cmd
}

// run runs a command that must end with status 0, and returns its output.
func (m *machine) run(user string, args ...string) string {
	m.t.Helper()
	out, err := m.command(user, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s runs %v, which fails: %v\n%s\n%s", user, args, err, out,
			m.try("journalctl", "--no-pager", "-o", "cat", "-n", "40"))
	}
	return string(out)
}

// fails runs a command that must not end with status 0, and returns its output.
func (m *machine) fails(user string, args ...string) string {
	m.t.Helper()
	out, err := m.command(user, args...).CombinedOutput()
	if err == nil {
		m.t.Fatalf("%s runs %v, which succeeds, but must fail\n%s", user, args, out)
	}
	return string(out)
}

// try runs a command as root, ignores its status, and returns its output.
func (m *machine) try(args ...string) string {
	out, _ := m.command("root", args...).CombinedOutput()
	return string(out)
}

// write writes a file in the machine, and makes its folder.
func (m *machine) write(path, owner, mode, text string) {
	m.t.Helper()
	cmd := m.command("root", "install", "-D", "-o", owner, "-g", owner, "-m", mode,
		"/dev/stdin", path)
	cmd.Stdin = strings.NewReader(text)
	succeed(m.t, cmd)
}

// until waits until the output of a command contains want.
func (m *machine) until(want string, args ...string) {
	m.t.Helper()
	for deadline := time.Now().Add(testkit.Patience); ; time.Sleep(50 * time.Millisecond) {
		out := m.try(args...)
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%v has not printed %q in time; its last output is\n%s", args,
				want, out)
		}
	}
}

// expect runs a command that must end with status 0, and whose output must contain want.
func (m *machine) expect(want, user string, args ...string) {
	m.t.Helper()
	if out := m.run(user, args...); !strings.Contains(out, want) {
		m.t.Errorf("%s runs %v: want %q in the output\n%s", user, args, want, out)
	}
}
