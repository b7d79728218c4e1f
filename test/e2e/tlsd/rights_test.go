package tlsd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// If root runs tlsd, a session has the rights of its caller. The users and groups of these tests
// are only numbers, which the kernel accepts without an entry in /etc/passwd.

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to call as other users")
	}
	t.Parallel()
}

// guarded makes a copy that only root and a group can read, and returns the path of the copy.
func guarded(t *testing.T, from, to string, gid int) string {
	t.Helper()
	put(t, from, to)
	if err := os.Chmod(to, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(to, 0, gid); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestOtherUsersUseTheirOwnRights(t *testing.T) {
	needRoot(t)
	dir := testkit.Dir(t)
	ca := testcert.NewCA(t, "Test CA")
	leaf := ca.Localhost(t)
	secret, key := guarded(t, ca.File, dir+"/secret.pem", 55),
		guarded(t, leaf.KeyFile, dir+"/key.pem", 55)
	cert := put(t, leaf.CertFile, dir+"/cert.pem")
	sock := filepath.Join(dir, "s")
	startWith(t, nil, "", "--socket", sock, "--allow-uid", "1234", "--allow-gid", "55")
	info, err := os.Lstat(sock)
	testkit.Must(t, err)
	if info.Mode().Perm() != 0o666 {
		t.Errorf("the socket has the mode %v; want 0666", info.Mode())
	}
	setBundle, serve := request(1, "tls.SetCaBundle", secret),
		request(1, "tls.NewServerContext", cert, key)
	tests := []struct {
		name string
		who  *syscall.Credential
		line string
		want []string
	}{
		{"root", &syscall.Credential{Uid: 0, Gid: 0}, setBundle, []string{`"result":0`}},
		{"root's key", &syscall.Credential{Uid: 0, Gid: 0}, serve, []string{`"result":1`}},
		{"user without the right", &syscall.Credential{Uid: 1234, Gid: 1234}, setBundle,
			[]string{`"kind":"file"`, `"errno":"EACCES"`}},
		{"user without the right to the key", &syscall.Credential{Uid: 1234, Gid: 1234},
			serve, []string{`"kind":"file"`, `"errno":"EACCES"`,
				"key.pem: permission denied"}},
		{"user with the right by a group", &syscall.Credential{Uid: 1234, Gid: 1234,
			Groups: []uint32{7, 55}}, setBundle, []string{`"result":0`}},
		{"user with the right to the key by a group",
			&syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{7, 55}}, serve,
			[]string{`"result":1`}},
		{"user in another group", &syscall.Credential{Uid: 1234, Gid: 1234,
			Groups: []uint32{7, 56}}, serve, []string{`"kind":"file"`}},
		{"user of an allowed group", &syscall.Credential{Uid: 4321, Gid: 55}, setBundle,
			[]string{`"result":0`}},
		{"user with an allowed group besides", &syscall.Credential{Uid: 4321, Gid: 4321,
			Groups: []uint32{7, 55}}, serve, []string{`"result":1`}},
		{"user without an allowed group", &syscall.Credential{Uid: 4321, Gid: 4321,
			Groups: []uint32{7, 56}}, askBackend,
			[]string{`"id":null,"error":{"code":-32012`}},
		{"its library is known", &syscall.Credential{Uid: 1234, Gid: 1234},
			request(1, "tls.Info"), []string{`libssl.so`}},
	}
	for _, tt := range tests {
		got := callAs(t, tt.who, sock, tt.line)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: the answer is %s; want %s", tt.name, got, want)
			}
		}
	}
}

// If tlsd's real and effective user differed, its workers would get the rights of the real user,
// perhaps root's. So tlsd does not start.
func TestADaemonOfTwoUsersDoesNotStart(t *testing.T) {
	needRoot(t)
	dir := testkit.Dir(t)
	if err := os.Chown(dir, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	for what, as := range map[string][]string{
		"the real user is 0, the effective one 1234": {"--euid=1234", "--regid=1234",
			"--clear-groups"},
		"the real user is 1234, the effective one 0": {"--ruid=1234", "--regid=1234",
			"--clear-groups"},
		"the real group is 0, the effective one 1234": {"--reuid=1234", "--rgid=0",
			"--egid=1234", "--clear-groups"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, "setpriv",
				append(as, binary, "--socket", filepath.Join(dir, "s"),
					"--idle-exit=1ms")...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TLSD_CONFIG=none"}
			if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 ||
				!strings.Contains(string(out), what) {
				t.Errorf("tlsd must end with status 1 and say why; "+
					"it ends with %v: %s", err, out)
			}
		})
	}
}

// With one --allow-gid, the kernel lets only this group connect to the socket. So other users
// cannot even flood tlsd with connections.
func TestOnlyTheAllowedGroupConnects(t *testing.T) {
	needRoot(t)
	sock := filepath.Join(testkit.Dir(t), "s")
	startWith(t, nil, "", "--socket", sock, "--allow-gid", "61355")
	info, err := os.Lstat(sock)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o660 || st.Uid != 0 ||
		st.Gid != 61355 {
		t.Errorf("the socket has user %d, group %d and mode %v; want user 0, group 61355 "+
			"and mode 0660", st.Uid, st.Gid, info.Mode())
	}
	if got := callAs(t, &syscall.Credential{Uid: 61234, Gid: 61234, Groups: []uint32{61355}},
		sock, askBackend); !strings.Contains(got, `"result":`) {
		t.Errorf("a member of the group is answered with %s, want a result", got)
	}
	stranger := exec.Command("/proc/self/exe", sock, askBackend)
	stranger.Env = []string{callerEnv + "=1"}
	stranger.Dir = "/"
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234,
		Gid: 61234}}
	if out, err := stranger.CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "permission denied") {
		t.Errorf("a user outside of the group connects: %s, %v; want permission denied",
			out, err)
	}
}

// A session of root's daemon may listen on a port only if the session's user may. The daemon has a
// network namespace of its own, with the kernel's default: only root may listen on ports below
// 1024.
func TestOtherUsersListenWhereTheyCould(t *testing.T) {
	needRoot(t)
	dir := testkit.Dir(t)
	leaf := testcert.SelfSigned(t, testcert.Leaf{CN: "x"})
	cert, key := put(t, leaf.CertFile, dir+"/cert.pem"), put(t, leaf.KeyFile, dir+"/key.pem")
	sock := filepath.Join(dir, "s")
	for _, isolation := range []string{"session", "shared"} {
		startWith(t, nil, `exec unshare --net "$0" "$@";`, "--socket", sock+isolation,
			"--allow-uid", "1234", "--isolation", isolation)
		for _, tc := range []struct {
			uid  uint32
			port int
			want string
		}{
			{1234, 443, `"errno":"EACCES"`},
			{1234, 1023, `"errno":"EACCES"`},
			// CloseServerContext has cancelled Accept, so Accept has listened.
			{1234, 1024, `"kind":"cancelled"`},
			{0, 443, `"kind":"cancelled"`},
		} {
			batch := "[" + request(1, "tls.NewServerContext", cert, key) + "," +
				request(2, "tls.Accept", 1, "0.0.0.0", tc.port) + "," +
				request(3, "tls.CloseServerContext", 1) + "]"
			got := callAs(t, &syscall.Credential{Uid: tc.uid, Gid: tc.uid},
				sock+isolation, batch)
			if !strings.Contains(got, tc.want) ||
				!strings.Contains(got, `"id":1,"result":1`) {
				t.Errorf("--isolation=%s: user %d, Accept on port %d: the answer "+
					"is %s; want %s", isolation, tc.uid,
					tc.port, got, tc.want)
			}
		}
	}
}

// A worker has its caller's user, group and groups, and no capabilities, before the caller has sent
// anything.
func TestRightsAreInForceBeforeTheFirstByte(t *testing.T) {
	needRoot(t)
	sock := filepath.Join(testkit.Dir(t), "s")
	daemon := startWith(t, nil, "", "--socket", sock, "--allow-uid", "1234")
	caller := exec.Command("/proc/self/exe", sock, request(1, "tls.Hello", 1))
	caller.Env = []string{callerEnv + "=wait"}
	caller.Dir = "/"
	caller.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234,
		Gid: 1235, Groups: []uint32{8, 9}}}
	speak, err := caller.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	caller.Stdout = &out
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	defer caller.Wait()
	defer speak.Close()

	// The children include the spare worker, which still has root's rights.
	var worker int
	var status map[string]string
	testkit.Until(t, "a worker has got the rights of the caller", func() bool {
		for _, c := range testkit.Children(daemon.Process.Pid) {
			s := statusOf(c.PID)
			if s["Name"] == "tlsd-worker" && s["Uid"] != "0 0 0 0" {
				worker, status = c.PID, s
			}
		}
		return worker != 0
	})
	for name, want := range map[string]string{
		"Uid": "1234 1234 1234 1234", "Gid": "1235 1235 1235 1235", "Groups": "8 9",
		"CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapInh": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if status[name] != want {
			t.Errorf("before the first byte, the worker's %s is %s, want %s", name,
				status[name], want)
		}
	}
	fmt.Fprintln(speak, "now")
	caller.Wait()
	var answer struct {
		Result struct{ Server struct{ PID int } }
	}
	if err := json.Unmarshal([]byte(out.String()), &answer); err != nil ||
		answer.Result.Server.PID != worker {
		t.Errorf("the answer must come from the worker %d, whose rights were checked; "+
			"got %s, %v", worker, out.String(),
			err)
	}
}

// statusOf returns the fields of /proc/PID/status.
func statusOf(pid int) map[string]string {
	status := map[string]string{}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.Join(strings.Fields(value), " ")
	}
	return status
}
