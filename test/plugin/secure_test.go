package plugin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testhost"
	"tlsd/internal/testkit"
)

// A set-uid program has more rights than the user that runs it. This user sets the environment
// variables. They must not lead the plugin of such a program to a daemon, a program to execute, or
// a file to write.

// The users and groups are made up.
const (
	runner     = 61301 // runs the program
	ownerUser  = 61302 // owns a set-uid program
	ownerGroup = 61303 // owns a set-gid program
)

// privileged makes a copy of the host program in dir. The function prepare gives it more rights,
// such as a set-uid bit.
func privileged(t *testing.T, dir string, prepare func(file string) error) string {
	t.Helper()
	text, err := os.ReadFile(plain.program(t, testhost.Source()))
	file := filepath.Join(dir, "host")
	if err = firstError(err, testd.WriteProgram(file, text)); err != nil {
		t.Fatal(err)
	}
	if err := prepare(file); err != nil {
		t.Fatal(err)
	}
	return file
}

// A trap is a directory, and a socket where a stand-in for tlsd listens. Environment variables lead
// to both. If the plugin follows the variables, it leaves marks: files in the directory, or a
// connection to the stand-in.
type trap struct {
	dir    string
	socket *standIn
	euid   int
}

// newTrap lays a trap for a program with the effective user euid.
func newTrap(t *testing.T, euid int) *trap {
	t.Helper()
	dir := nowhere(t)
	tr := &trap{dir: dir, euid: euid}
	for _, name := range []string{"run", "bin", "log"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\necho \"$0\" >%s/log/executed\nexit 1\n", dir)
	err := firstError(testd.WriteProgram(dir+"/bin/tlsd", []byte(script)), os.Chmod(dir, 0o755),
		os.Chmod(dir+"/bin", 0o755),
		os.Chmod(dir+"/bin/tlsd", 0o755), os.Chown(dir+"/run", euid, -1),
		os.Chown(dir+"/log", euid, -1))
	if err != nil {
		t.Fatal(err)
	}
	// The stand-in is root's. So a plugin that follows TLSD_SOCKET does not refuse it.
	tr.socket = standInAt(t, dir+"/named")
	if err := os.Chmod(tr.socket.path, 0o666); err != nil {
		t.Fatal(err)
	}
	return tr
}

// named returns an environment that leads to the trap's stand-in.
func (tr *trap) named() []string { return []string{tr.socket.env()} }

// started returns an environment that leads to a program to start as tlsd, and to its log and its
// directory.
func (tr *trap) started() []string {
	return []string{"TLSD_EXE=" + tr.dir + "/bin/tlsd", "TLSD_LOG=" + tr.dir + "/log/tlsd.log",
		"TLSD_AUTOSTART=1",
		"XDG_RUNTIME_DIR=" + tr.dir + "/run", "PATH=" + tr.dir + "/bin"}
}

// run starts the host program as the user uid, makes one call, and returns the text of its result.
func (tr *trap) run(t *testing.T, program string, uid int, env []string) string {
	t.Helper()
	h, err := testhost.Start(testhost.Options{
		Program: program, Library: plain.library(t), Env: env,
		Wrapper: []string{testkit.Tool(t, "setpriv"), fmt.Sprintf("--reuid=%d", uid),
			fmt.Sprintf("--regid=%d", uid), "--clear-groups"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.End(); err != nil {
			t.Error(err)
		}
	}()
	call, err := h.Send("NewClient", "localhost", 1)
	if err != nil {
		t.Fatal(err)
	}
	r, err := call.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return r.Text
}

// marks lists the marks in the directory, which show that the plugin has followed the environment.
// The parameter said is the error text that the host's call has given.
func (tr *trap) marks(said string) (list []string) {
	for _, file := range []string{"log/executed", "log/tlsd.log"} {
		if _, err := os.Lstat(filepath.Join(tr.dir, file)); err == nil {
			list = append(list, file)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(tr.dir, "run")); len(entries) > 0 {
		list = append(list, "run/"+entries[0].Name())
	}
	if strings.Contains(said, tr.dir) { // the error names a path of the trap
		list = append(list, said)
	}
	return list
}

func TestAProgramWithMoreRightsThanItsUserDoesNotTrustTheEnvironment(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to give a program rights")
	}
	setID := func(uid, gid int, mode os.FileMode) func(string) error {
		return func(file string) error {
			return firstError(syscall.Chown(file, uid, gid), os.Chmod(file, mode|0o755))
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(file string) error
		euid    int
		trusts  bool
	}{
		// A program without more rights must follow the environment. So this case shows
		// that the trap works.
		{"nothing", setID(0, 0, 0), runner, true},
		{"set-uid root", setID(0, 0, os.ModeSetuid), 0, false},
		{"set-uid another user", setID(ownerUser, 0, os.ModeSetuid), ownerUser, false},
		{"set-gid", setID(0, ownerGroup, os.ModeSetgid), runner, false},
		{"a file capability", func(file string) error {
			out, err := exec.Command(testkit.Tool(t, "setcap"),
				"cap_net_bind_service+ep",
				file).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}, runner, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tr := newTrap(t, c.euid)
			program := privileged(t, tr.dir, c.prepare)
			if said := tr.run(t, program, runner,
				tr.started()); (len(tr.marks(said)) > 0) != c.trusts {
				t.Errorf("want the plugin to use TLSD_EXE: %t; it left the marks "+
					"%q; the call's error: %s", c.trusts, tr.marks(said),
					said)
			}
			taken := make(chan error, 1)
			go func() {
				conn, err := tr.socket.ln.AcceptUnix()
				if err == nil {
					conn.Close()
				}
				taken <- err
			}()
			said := tr.run(t, program, runner, tr.named())
			tr.socket.ln.Close()
			if err := <-taken; (err == nil) != c.trusts {
				t.Errorf("want the plugin to use TLSD_SOCKET: %t; accept on that "+
					"socket gave the error %v; the call's error: %s",
					c.trusts, err, said)
			}
		})
	}
}

// A program whose real and effective users differ must not start a tlsd. This tlsd would have the
// rights of both users, and would serve all programs of one of them.
func TestAProgramOfTwoUsersStartsNoTLSD(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	dir := nowhere(t)
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	h := startHostWith(t, hostOptions{flavour: plain, env: []string{
		"XDG_RUNTIME_DIR=" + dir, "TLSD_AUTOSTART=1", "TLSD_EXE=" + tlsdThat(t, "serves"),
	}})
	h.send("seteuid", 65534).gives(0, "")
	h.send("NewClient", "h", 1).fails("tls.NewClient: ", "the real user of this program is 0 "+
		"and the effective one 65534")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("no tlsd may start, but its directory contains %v, %v", entries, err)
	}
}
