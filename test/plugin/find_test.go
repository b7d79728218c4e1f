package plugin

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// The plugin looks for a tlsd in the documented order, and talks only to trusted users.

// backendIs makes the host call tls_Backend. The call must reach the stand-in d, which answers with
// name.
func backendIs(t *testing.T, h *host, d *standIn, name string) {
	t.Helper()
	call := h.start("Backend")
	p, _ := d.session()
	for range 2 { // two calls of tls_Backend, for the length and the text
		p.result(p.expect("tls.Backend", "[]"), `"`+name+`"`)
	}
	call.gives(int64(len(name)), name)
}

// If TLSD_SOCKET is set, the plugin tries only the socket that TLSD_SOCKET names.
func TestTheNamedSocketComesFirst(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	runtime := standInAt(t, filepath.Join(dir, "tlsd.sock"))
	named := newStandIn(t)
	h := startHost(t, "XDG_RUNTIME_DIR="+dir, named.env())
	backendIs(t, h, named, "named")

	h = startHost(t, "XDG_RUNTIME_DIR="+dir, "TLSD_SOCKET=") // the same as unset
	backendIs(t, h, runtime, "runtime")

	// If no daemon listens on the named socket, the plugin does not try another socket.
	h = startHost(t, "XDG_RUNTIME_DIR="+dir, "TLSD_SOCKET="+dir+"/none")
	h.send("Version", 0).gives(0, "")
	h.send("NewClient", "localhost",
		1).fails("tls.NewClient: backend: no tlsd: "+dir+"/none: No such file or "+
		"directory; no private tlsd was started", "TLSD_AUTOSTART is 0")
	if r := h.call("LastError"); strings.Contains(r.Text, "/run/") {
		t.Errorf("TLSD_SOCKET is set, but the error names a socket in /run: %s", r.Text)
	}
}

// If the plugin finds no daemon, the error names each socket that it has tried, and why each
// failed.
func TestTheErrorNamesEachSocketThatWasTried(t *testing.T) {
	t.Parallel()
	if _, err := os.Lstat("/run/tlsd.sock"); err == nil {
		t.Skip("this machine runs a tlsd of its own")
	}
	dir := nowhere(t)
	run := "/run/tlsd.sock: No such file or directory"
	h := startHost(t, "XDG_RUNTIME_DIR="+dir)
	h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: " + dir +
		"/tlsd.sock: No such file or directory; " + run)

	h = startHost(t, "XDG_RUNTIME_DIR=relative")
	h.send("NewServerContext", "/c",
		"/k").fails(
		"tls.NewServerContext: backend: no tlsd: "+run+"; /run/tlsd/tlsd.sock: No such "+
			"file or directory; /tmp/tlsd-"+strconv.Itoa(os.Geteuid())+"/tlsd.sock: ",
		"TLSD_AUTOSTART is 0")

	// A socket without a listener, files that are no sockets, and paths that are too long.
	dead := filepath.Join(dir, "dead")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	long := "/" + strings.Repeat("x", 107)
	for path, why := range map[string]string{
		dead:                 dead + ": Connection refused",
		"/etc/passwd":        "/etc/passwd: Connection refused",
		"/etc/passwd/x":      "/etc/passwd/x: Not a directory",
		long:                 long + ": the path of a socket can have at most 107 bytes",
		long[:107] + "\xc3ä": "the path of a socket can have at most 107 bytes",
	} {
		h := startHost(t, "TLSD_SOCKET="+path)
		h.send("SetCaBundle", "/ca").fails("tls.SetCaBundle: backend: no tlsd: ", why)
		h.send("Backend").gives(4, "stub")
	}
}

func TestAServerOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	// A stand-in of user 65534 listens; root's host must not talk to it.
	dir := nowhere(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	socket, exe := filepath.Join(dir, "s"), filepath.Join(dir, "tlsd")
	copyFile(t, self(t), exe)
	cmd := exec.Command(exe, "--socket", socket, "--ready-fd", "1")
	cmd.Env = []string{asTLSD + "=serves"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534,
		Gid: 65534}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if n, _ := out.Read(make([]byte, 1)); n == 0 {
		t.Fatal("the stand-in of user 65534 ended before it said that it was ready")
	}
	h := startHost(t, "TLSD_SOCKET="+socket, "TLSD_AUTOSTART=1",
		"TLSD_EXE="+tlsdThat(t, "serves"))
	h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: "+socket+": refused",
		"user 65534 has made the socket; user 65534 is not root, not the user of this "+
			"process (user 0)")
}

func TestThePluginTrustsRootsServer(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root: in every other test the daemon and the host have the same user")
	}
	// This stand-in is root's, and the host has another user. The plugin must trust root's
	// daemon.
	d := newStandIn(t)
	if err := os.Chmod(filepath.Dir(d.path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.path, 0o666); err != nil {
		t.Fatal(err)
	}
	h := startHostWith(t, hostOptions{flavour: plain,
		wrapper: []string{testkit.Tool(t, "setpriv"),
			"--reuid=65534", "--clear-groups"}, env: []string{d.env()}})
	backendIs(t, h, d, "root's")
}

// If the queue of tlsd's socket is full, the plugin waits 10 s for a place in it. Then the call
// fails.
func TestThePluginWaits10sForAPlaceInAFullQueue(t *testing.T) {
	t.Parallel()
	path := fullQueue(t)
	h := startHost(t, "TLSD_SOCKET="+path)
	began := time.Now()
	h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: " + path +
		": Connection timed out")
	if d := time.Since(began); d < 9*time.Second {
		t.Errorf("waited %v for a place in the queue; want 10 s", d)
	}
}

// Without XDG_RUNTIME_DIR the plugin starts a private tlsd in /tmp/tlsd-UID. If the directory is
// not private to the user, the plugin refuses it.
func TestThePrivateDirectoryMustBePrivate(t *testing.T) {
	if _, err := os.Lstat("/run/tlsd.sock"); err == nil {
		t.Skip("this machine runs a tlsd of its own")
	}
	// The host has a user id that no other program has. So no real user's directory is touched.
	const uid = 54321
	dir := "/tmp/tlsd-" + strconv.Itoa(uid)
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Skipf("%s exists already; this test must make it", dir)
	}
	// Every file that the other user runs must be readable for that user.
	shared := nowhere(t)
	if err := os.Chmod(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	standIn, exe := filepath.Join(shared, "stand-in"), filepath.Join(shared, "tlsd")
	copyFile(t, self(t), standIn)
	if err := testd.WriteProgram(exe,
		[]byte(
			"#!/bin/sh\nexport "+asTLSD+"=serves\nexec "+standIn+` "$@"`+"\n")); err != nil {
		t.Fatal(err)
	}
	start := func() *host {
		return startHostWith(t, hostOptions{flavour: plain,
			wrapper: []string{testkit.Tool(t, "setpriv"),
				"--reuid=" + strconv.Itoa(uid),
				"--clear-groups"},
			env: []string{"TLSD_AUTOSTART=1", "TLSD_EXE=" + exe}})
	}
	defer os.RemoveAll(dir)
	for _, c := range []struct {
		name string
		make func() error
		why  string
	}{
		{"another's", func() error { return os.Mkdir(dir, 0o755) },
			dir + ": belongs to another user"},
		{"open", func() error {
			return firstError(os.Mkdir(dir, 0o700), os.Chown(dir, uid, uid),
				os.Chmod(dir, 0o750))
		}, dir + ": is open to other users; its mode must be 0700"},
		{"link", func() error {
			return firstError(os.Symlink(shared, dir), os.Lchown(dir, uid, uid))
		}, dir + ": is no directory"},
		{"file", func() error { return os.WriteFile(dir, nil, 0o600) },
			dir + ": is no directory"},
	} {
		if err := c.make(); err != nil {
			t.Fatalf("%s: the folder cannot be made: %v", c.name, err)
		}
		start().send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ", c.why)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}

	h := start()
	h.send("Backend").gives(7, "openssl")
	st, err := os.Lstat(dir)
	testkit.Must(t, err)
	if st.Mode() != os.ModeDir|0o700 {
		t.Errorf("the plugin has made %s with mode %v; want drwx------", dir, st.Mode())
	}
	second := start() // this host finds the directory that the first host has made
	second.send("Backend").gives(7, "openssl")
	second.send("exit")
	h.send("exit")
	gone(t, dir+"/tlsd.sock")
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := testd.WriteProgram(to, data); err != nil {
		t.Fatal(err)
	}
}
