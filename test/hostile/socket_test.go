package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Events at the socket's path in the file system.

// If somebody removes or replaces the file of the daemon's socket, the daemon goes on with its
// sessions. A second daemon cannot start at the path. When the daemon ends, it removes nothing that
// others have put there.
func TestTheSocketsFileIsTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	for _, c := range []struct {
		name string
		put  func(t *testing.T, path string)
		dial error // what a caller gets; nil: not checked
	}{
		{"and nothing is there", func(t *testing.T, path string) {}, unix.ENOENT},
		{"and a file is there", func(t *testing.T,
			path string) {
			testkit.Must(t, os.WriteFile(path, []byte("precious"), 0o600))
		},
			unix.ECONNREFUSED},
		{"and a directory is there",
			func(t *testing.T, path string) { testkit.Must(t, os.Mkdir(path, 0o700)) },
			unix.ECONNREFUSED},
		{"and another socket is there", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			testkit.Must(t, err)
			t.Cleanup(func() { l.Close() })
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := testd.Start(t)
			tk := w.talk(t, d.Dial(t), port)
			testkit.Must(t, os.Remove(d.Socket))
			c.put(t, d.Socket)
			before, _ := os.Lstat(d.Socket)
			if c.dial != nil {
				if _, err := client.Dial(testkit.Bounded(t),
					d.Socket); !errors.Is(err, c.dial) {
					t.Errorf("a caller gets %v, want %v", err, c.dial)
				}
			}
			out, err := exec.Command(testd.Exe(t, "tlsd"), "--socket",
				d.Socket).CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) ||
				exit.ExitCode() != 1 || !strings.Contains(string(out), d.Socket) {
				t.Errorf("a second daemon ends with %v and prints %s; want exit "+
					"status 1, and a text with the socket's path", err, out)
			}
			tk.works(t)
			tk.c.Close()
			testkit.Must(t, d.Stop(t))
			after, err := os.Lstat(d.Socket)
			if before == nil {
				if !errors.Is(err, os.ErrNotExist) {
					t.Errorf("after the daemon's end its path has %v (%v), "+
						"want no file", after, err)
				}
			} else if err != nil || !os.SameFile(before, after) {
				t.Errorf("the daemon has removed what others had put at its "+
					"path: %v", err)
			}
		})
	}
}

// If many daemons start with one path at once, one of them serves. The others say that another tlsd
// serves the path, and exit. The files that they leave do not keep the next daemon from starting.
func TestManyDaemonsOnOnePath(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	path := filepath.Join(dir, "s")
	const many = 8
	// The second round finds the lock file and the socket of a killed daemon.
	for round := range 2 {
		var group sync.WaitGroup
		var losers, others sync.Map
		ended := make(chan int, many)
		cmds := make([]*exec.Cmd, many)
		logs := make([]*strings.Builder, many)
		for i := range cmds {
			logs[i] = new(strings.Builder)
			cmds[i] = exec.Command(testd.Exe(t, "tlsd"), "--socket", path, "--spare=0")
			cmds[i].Stderr = logs[i]
			gone := start(t, cmds[i])
			group.Go(func() {
				<-gone
				if cmds[i].ProcessState.ExitCode() == 1 &&
					strings.Contains(logs[i].String(), "another tlsd is "+
						"serving "+path) {
					losers.Store(i, true)
				} else {
					others.Store(i, logs[i].String())
				}
				ended <- i
			})
		}
		running := map[int]bool{}
		for i := range many {
			running[i] = true
		}
		for range many - 1 {
			delete(running, testkit.Receive(t, ended, "all daemons but one end"))
		}
		c, err := client.Dial(testkit.Bounded(t), path)
		testkit.Must(t, err)
		c.Close()
		for i := range running {
			cmds[i].Process.Kill()
		}
		group.Wait()
		n := 0
		losers.Range(func(any, any) bool { n++; return true })
		if n != many-1 {
			others.Range(func(i, log any) bool {
				t.Logf("daemon %d: %s", i, log)
				return true
			})
			t.Errorf("round %d: %d daemons exited because another one serves the "+
				"path, want %d", round, n, many-1)
		}
	}
	entries, err := os.ReadDir(dir)
	testkit.Must(t, err)
	for _, e := range entries {
		if e.Name() != "s" && e.Name() != "s.lock" {
			t.Errorf("the daemons have left the file %s", e.Name())
		}
	}
}

// If a daemon cannot make its socket, it says why in one line, exits with status 1, and leaves no
// socket.
func TestPlacesWhereNoSocketCanBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		path func(t *testing.T, dir string) string
		uid  uint32 // the daemon's user; 0: the user that runs the test
		says string
	}{
		{"a path too long", func(t *testing.T,
			dir string) string {
			return filepath.Join(dir, strings.Repeat("x", 108))
		},
			0, "choose a shorter one"},
		{"no folder", func(t *testing.T, dir string) string {
			return filepath.Join(dir, "none", "s")
		}, 0, "there is no directory"},
		{"a folder of somebody else",
			func(t *testing.T, dir string) string {
				testkit.Must(t, os.Chmod(dir, 0o555))
				return filepath.Join(dir, "s")
			}, 65534,
			"s.lock: permission denied"},
		{"a folder that is a file", func(t *testing.T, dir string) string {
			testkit.Must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
			return filepath.Join(dir, "f", "s")
		}, 0, "not a directory"},
		{"a lock that is a folder", func(t *testing.T, dir string) string {
			testkit.Must(t, os.Mkdir(filepath.Join(dir, "s.lock"), 0o700))
			return filepath.Join(dir, "s")
		}, 0, "s.lock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := testkit.Dir(t)
			path := c.path(t, dir)
			cmd := exec.Command(testd.Exe(t, "tlsd"), "--socket", path)
			if c.uid != 0 && os.Geteuid() == 0 { // permissions do not bind root
				credential := &syscall.Credential{Uid: c.uid, Gid: c.uid}
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
			}
			out, err := cmd.CombinedOutput()
			// setuid(2) gives EINVAL in a user namespace that has no other users.
			if errors.Is(err, unix.EINVAL) {
				t.Skipf("there is no user %d in this user namespace", c.uid)
			}
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) ||
				exit.ExitCode() != 1 || !strings.Contains(string(out), c.says) ||
				strings.Count(string(out), "\n") != 1 {
				t.Errorf("tlsd ends with %v and says %s; want exit status 1, "+
					"and one line with %q", err, out, c.says)
			}
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("tlsd has left %s", path)
			}
		})
	}
	t.Run("a lock that is left behind is no obstacle", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(testkit.Dir(t), "s")
		testkit.Must(t, os.WriteFile(path+".lock", []byte("whatever"), 0o400))
		cmd := exec.Command(testd.Exe(t, "tlsd"), "--socket", path)
		start(t, cmd)
		testkit.Until(t, "a daemon serves although it found a lock file", func() bool {
			c, err := client.Dial(t.Context(), path)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	})
}

// If a daemon stops between bind(2) and listen(2), callers are refused at once. A second daemon
// says that another tlsd has the path, and exits. When the first daemon is dead, a new daemon gets
// the path. The test itself plays the first daemon.
func TestADaemonThatIsBoundAndDoesNotListen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.Dir(t), "s")
	lock, err := os.Create(path + ".lock")
	testkit.Must(t, err)
	defer lock.Close()
	testkit.Must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	testkit.Must(t, err)
	testkit.Must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))

	if _, err := client.Dial(testkit.Bounded(t), path); !errors.Is(err, unix.ECONNREFUSED) ||
		!strings.Contains(err.Error(), path) {
		t.Errorf("a caller gets %v, want ECONNREFUSED and the path", err)
	}
	scriptFails(t, path, "Connection refused")
	out, err := exec.Command(testd.Exe(t, "tlsd"), "--socket", path).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 ||
		!strings.Contains(string(out), "another tlsd is serving "+path+", or about to") {
		t.Errorf("a second daemon ends with %v and prints %s; want exit status 1, and "+
			"\"another tlsd is serving …\"", err, out)
	}

	unix.Close(fd) // the first daemon dies
	lock.Close()
	cmd := exec.Command(testd.Exe(t, "tlsd"), "--socket", path)
	start(t, cmd)
	testkit.Until(t, "the next daemon serves", func() bool {
		c, err := client.Dial(t.Context(), path)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// If the daemon is stopped (SIGSTOP), a new caller does not wait for ever: it gives up after a
// timeout, with an error that says what it waited for. Callers that have a worker notice nothing.
// After SIGCONT the daemon serves again.
func TestADaemonThatIsStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	// Some of the 16 spare workers are still starting when SIGSTOP comes. They must wait until
	// the daemon goes on, and can hear that they are ready.
	d := testd.Start(t, "--spare=16")
	tk := w.talk(t, d.Dial(t), port)
	testkit.Must(t, unix.Kill(d.PID, unix.SIGSTOP))
	t.Cleanup(func() { unix.Kill(d.PID, unix.SIGCONT) })
	testkit.Until(t, "all threads of the daemon have stopped", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.PID))
		return len(threads) > 0 && !slices.ContainsFunc(threads, func(file string) bool {
			stat, _ := os.ReadFile(file)
			return !strings.Contains(string(stat), ") T ")
		})
	})
	var both sync.WaitGroup
	both.Go(func() {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
		defer cancel()
		_, err := client.Dial(ctx, d.Socket)
		if err == nil || !strings.Contains(err.Error(),
			d.Socket+": tlsd has not answered within ") {
			t.Errorf("a caller gets %v, want \"tlsd has not answered within …\"", err)
		}
		t.Logf("a Go caller gives up after %v: %v", time.Since(begin), err)
	})
	both.Go(func() { scriptFails(t, d.Socket, "has not answered in time") })
	tk.works(t)
	both.Wait()
	tk.works(t)
	testkit.Must(t, unix.Kill(d.PID, unix.SIGCONT))
	serves(t, d)
	tk.works(t)
	if log := d.Log(t); strings.Contains(log, `"level":"error"`) {
		t.Errorf("the log has an error, so a worker did not survive the daemon's stop:\n%s",
			log)
	}
}

// scriptFails runs a script that calls tls.NewClient, and lets the plugin start no private daemon.
// The script must fail, and its output must name the socket and have the reason in says.
func scriptFails(t *testing.T, socket, says string) {
	t.Helper()
	dir := t.TempDir()
	testkit.Must(t, os.Symlink(testd.Plugin(t), filepath.Join(dir, "TlsPlugin.so")))
	script := filepath.Join(dir, "s.dom")
	testkit.Must(t, os.WriteFile(script,
		[]byte("plugin \"./TlsPlugin\";\n\nvoid main() {\n    "+
			"tls.NewClient(\"127.0.0.1\", 1);\n}\n"), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, testd.Domhost(t), script)
	cmd.Env = []string{"TLSD_SOCKET=" + socket, "TLSD_AUTOSTART=0", "PATH=/nowhere"}
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	text := string(out)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) ||
		!strings.Contains(text, "tls.NewClient: backend: ") ||
		!strings.Contains(text, socket) || !strings.Contains(text, says) {
		t.Errorf("the script ends with %v and prints %s; want kind backend, the socket "+
			"and %q", err, text, says)
	}
	t.Logf("a script gives up after %v: %s", time.Since(begin), text)
}
