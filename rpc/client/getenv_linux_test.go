package client_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testd"
	"tlsd/rpc/client"
)

// If the variable playGetenv is set, the test prints the sockets that a client with the same
// environment tries.
const playGetenv = "TLSD_TEST_GETENV"

// A set-uid or set-gid program ignores TLSD_SOCKET. Otherwise its user could make the program
// connect to a false daemon.
func TestAProgramWithMoreRightsThanItsUserDoesNotTrustTheEnvironment(t *testing.T) {
	if os.Getenv(playGetenv) != "" { // in a process of its own
		fmt.Printf("\nsockets: %q\n", client.DefaultSockets(client.Getenv, client.Conf{}))
		return
	}
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to give a program rights")
	}
	const user, other = 65534, 61111
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		uid, gid int // of the file
		mode     os.FileMode
		trusts   bool
	}{
		{"nothing", 0, 0, 0, true}, // shows that the variable has an effect
		{"set-uid-root", 0, 0, os.ModeSetuid, false},
		{"set-uid", other, 0, os.ModeSetuid, false},
		{"set-gid", 0, other, os.ModeSetgid, false},
	} {
		program := filepath.Join(dir, c.name)
		if err := testd.WriteProgram(program, text); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(program, c.uid, c.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(program, 0o755|c.mode); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$",
			"-test.v")
		cmd.Dir, cmd.Env = "/", []string{playGetenv + "=1", "TLSD_SOCKET=/of/the/user"}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: user, Gid: user}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "\nsockets: ") {
			t.Fatalf("%s: the program has not printed its sockets: %v\n%s", c.name, err,
				out)
		}
		if strings.Contains(string(out), "/of/the/user") != c.trusts {
			t.Errorf("%s: the program uses TLSD_SOCKET: %v, want %v\n%s", c.name,
				!c.trusts, c.trusts, out)
		}
	}
}
