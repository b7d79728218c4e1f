package plugin

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testkit"
)

// root's /etc/tlsd/client.conf and the sockets of the system's tlsd decide which tlsd the plugin
// uses. A mount namespace gives each host an /etc and a /run of its own.

// A machine says which files a host finds in /etc and /run.
type machine struct {
	conf  string // content of client.conf; "": there is none
	setup string // root runs these shell commands, then $etc becomes the host's /etc
	env   []string
}

// start starts a host on the machine.
func (m machine) start(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, for a mount namespace and files of root's")
	}
	etc := filepath.Join(nowhere(t), "etc")
	if err := firstError(os.MkdirAll(etc+"/tlsd", 0o755),
		os.WriteFile(etc+"/passwd",
			[]byte("root:x:0:0::/:/bin/sh\nsvc:x:65534:65534::/:/bin/sh\n"),
			0o644)); err != nil {
		t.Fatal(err)
	}
	if m.conf != "" {
		if err := os.WriteFile(etc+"/tlsd/client.conf", []byte(m.conf), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := `set -e; mount --make-rprivate /; mount -t tmpfs none /run; ` + m.setup + "\n" +
		`mount --bind "$etc" /etc; exec "$@"`
	return startHostWith(t, hostOptions{flavour: asan,
		wrapper: []string{testkit.Tool(t, "unshare"),
			"--mount", testkit.Tool(t, "sh"), "-c", script, "sh"},
		env: append([]string{"etc=" + etc, "TLSD_AUTOSTART=",
			"TLSD_EXE=" + tlsdThat(t, "serves")}, m.env...)})
}

// If the system has a tlsd for all users, and this tlsd is down, the plugin starts no private tlsd,
// and the error says why. The same holds if client.conf has autostart = no. In all other cases, and
// always with autostart = yes, the plugin starts a private tlsd.
func TestNoPrivateTLSDIsStartedBesideTheSystems(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	xdg := "XDG_RUNTIME_DIR=" + dir
	for name, c := range map[string]struct {
		machine
		want []string // in the error
	}{
		"its socket is there": {machine{"", "touch /run/tlsd.sock", []string{xdg}},
			[]string{dir + "/tlsd.sock: No such file or directory; /run/tlsd.sock: " +
				"Connection refused", "no private tlsd was started beside the " +
				"system's tlsd, which is down", "its socket is /run/tlsd.sock"}},
		"its socket is named": {machine{"", "", []string{"TLSD_SOCKET=/run/tlsd.sock"}},
			[]string{"no tlsd: /run/tlsd.sock: No such file or directory; no private " +
				"tlsd was started beside the system's tlsd",
				"its socket is /run/tlsd.sock"}},
		"its socket is in its folder": {machine{"", "mkdir /run/tlsd; touch " +
			"/run/tlsd/tlsd.sock", []string{xdg}},
			[]string{"/run/tlsd/tlsd.sock: Connection refused; no private tlsd was " +
				"started beside the system's tlsd",
				"its socket is /run/tlsd/tlsd.sock"}},
		"client.conf names a socket": {machine{"# ours\n\nsocket = /run/x/tlsd.sock\n", "",
			[]string{xdg}},
			[]string{"no tlsd: /run/x/tlsd.sock: No such file or directory; no " +
				"private tlsd was started, because /etc/tlsd/client.conf names " +
				"the system's socket /run/x/tlsd.sock; the system's tlsd is down"}},
		"client.conf names a socket, and the environment, too": {machine{"socket = /run/x",
			"", []string{"TLSD_SOCKET=" + dir + "/s"}},
			[]string{"no tlsd: " + dir + "/s: No such file or directory; no private " +
				"tlsd was started, because /etc/tlsd/client.conf names the " +
				"system's socket"}},
		"client.conf forbids it": {machine{"autostart = no\n", "", []string{xdg}},
			[]string{"no private tlsd was started, because /etc/tlsd/client.conf has " +
				"autostart = no; the system's tlsd is down"}},
		"client.conf forbids it, whatever the environment": {machine{"autostart=no", "",
			[]string{"TLSD_SOCKET=" + dir + "/s", "TLSD_AUTOSTART=1"}},
			[]string{"/etc/tlsd/client.conf has autostart = no"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := c.start(t)
			h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ",
				c.want...)
			h.send("Backend").gives(4, "stub")
		})
	}
	for name, m := range map[string]machine{
		"nothing is there":      {"", "", nil},
		"client.conf allows it": {"autostart = yes\n", "touch /run/tlsd.sock", nil},
		"client.conf allows it beside a socket that it names": {
			"socket = /run/x\nautostart = yes\n", "", nil},
		"client.conf says nothing of it": {"trusted-users = 12, 13\n", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := nowhere(t)
			m.env = []string{"XDG_RUNTIME_DIR=" + dir}
			h := m.start(t)
			h.send("Backend").gives(7, "openssl")
			h.send("exit")
			gone(t, dir+"/tlsd.sock")
		})
	}
}

// If client.conf names a socket, the plugin tries only this socket. If TLSD_SOCKET is set, the
// plugin tries only the socket that TLSD_SOCKET names.
func TestTheSystemsSocketOfClientConfIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	own, systems := standInAt(t, filepath.Join(dir, "tlsd.sock")), newStandIn(t)
	h := machine{"socket = " + systems.path + "\n", "",
		[]string{"XDG_RUNTIME_DIR=" + dir}}.start(t)
	backendIs(t, h, systems, "systems")
	h = machine{"", "", []string{"XDG_RUNTIME_DIR=" + dir}}.start(t)
	backendIs(t, h, own, "own")
	// TLSD_SOCKET overrides client.conf
	h = machine{"socket = " + systems.path + "\n", "", []string{own.env()}}.start(t)
	backendIs(t, h, own, "own")
}

// If a user other than root could change client.conf, or if client.conf has a mistake, each call
// fails with an error about the file. The plugin does not treat such a file as empty.
func TestClientConfIsRoots(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	const file = "/etc/tlsd/client.conf"
	for _, c := range []struct{ setup, want string }{
		{"chown 1 $etc/tlsd/client.conf",
			file + " belongs to user 1, who could change it; give it to root"},
		{"chmod 0664 $etc/tlsd/client.conf", file + " has the mode 0664"},
		{"chown 1 $etc/tlsd", "/etc/tlsd belongs to user 1"},
		{"chmod 0777 $etc/tlsd", "/etc/tlsd has the mode 0777"},
		{"chmod 0775 $etc", "/etc has the mode 0775"},
		{"mkfifo $etc/f; mv $etc/f $etc/tlsd/client.conf",
			file + " is not a regular file"},
		{"rm $etc/tlsd/client.conf; mkdir $etc/tlsd/client.conf",
			file + " is not a regular file"},
		{"mkdir /run/u; chown 1 /run/u; mv $etc/tlsd/client.conf /run/u/; " +
			"ln -s /run/u/client.conf $etc/tlsd/client.conf",
			"/run/u belongs to user 1"},
		{"rm $etc/tlsd/client.conf; ln -s client.conf $etc/tlsd/client.conf",
			file + ": Too many levels of symbolic links"},
		{"head -c 70000 /dev/zero | tr '\\0' '#' >$etc/tlsd/client.conf",
			file + ": it is too long"},
		{"printf 'autostart\\0= yes' >$etc/tlsd/client.conf", "or has a zero byte"},
		{"printf '\\n\\nautostrat = yes' >$etc/tlsd/client.conf", file + ": line 3: want " +
			"\"key = value\" with the key socket, autostart or trusted-users"},
		{"echo autostart >$etc/tlsd/client.conf", "line 1: want \"key = value\""},
		{"echo 'autostart = 1' >$etc/tlsd/client.conf",
			"line 1: autostart: want yes or no"},
		{"echo 'socket = run/x' >$etc/tlsd/client.conf",
			"line 1: socket: want an absolute path"},
		{"echo 'socket =' >$etc/tlsd/client.conf",
			"line 1: socket: want an absolute path"},
		{"printf 'autostart = yes\\nautostart = no\\n' >$etc/tlsd/client.conf",
			"line 2: the key is there twice"},
		{"printf 'autostart = yes\\nautostrat = no\\n' >$etc/tlsd/client.conf",
			"line 2: want \"key = value\" with the key socket"},
		{"echo '= yes' >$etc/tlsd/client.conf",
			"line 1: want \"key = value\" with the key"},
	} {
		h := machine{"autostart = yes\n", c.setup, []string{d.env()}}.start(t)
		h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: /", c.want)
	}
	// These changes leave a good client.conf, or none, and calls succeed.
	for _, setup := range []string{"mv $etc/tlsd/client.conf $etc/x; ln -s ../x " +
		"$etc/tlsd/client.conf", "chmod 0600 $etc/tlsd/client.conf", "rm -r $etc/tlsd"} {
		backendIs(t, machine{"\tautostart\t=  yes \r\n #x\n", setup,
			[]string{d.env()}}.start(t), d, "fine")
	}
}

// serveAs starts a stand-in as the user uid. It returns the path of its socket.
func serveAs(t *testing.T, uid uint32) string {
	t.Helper()
	dir := nowhere(t)
	exe := filepath.Join(dir, "tlsd")
	copyFile(t, self(t), exe)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(exe, "--socket", socket, "--ready-fd", "1")
	cmd.Env, cmd.Dir = []string{asTLSD + "=serves"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if n, _ := out.Read(make([]byte, 1)); n == 0 {
		t.Fatalf("the stand-in does not run as user %d", uid)
	}
	return socket
}

// The plugin trusts a tlsd that root or the host's own user runs. It trusts another user's tlsd
// only if trusted-users of client.conf has this user's name or number. The name may be that of a
// dynamic user of systemd.
func TestTrustedUsersMayRunTheDaemon(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	for conf, trusted := range map[string]bool{
		"trusted-users = svc\n":                 true,
		"trusted-users = 1, svc\n":              true,
		"trusted-users = 65534":                 true,
		"trusted-users = dynamic\n":             true,
		"trusted-users = root\n":                false,
		"trusted-users =\n":                     false,
		"trusted-users = nobody-knows-this\n":   false,
		"trusted-users = ../dynamic\n":          false,
		"trusted-users = 4294967295 65534x 1\n": false,
		"":                                      false,
	} {
		socket := serveAs(t, 65534)
		h := machine{conf, "mkdir -p /run/systemd/dynamic-uid; ln -s 65534 " +
			"/run/systemd/dynamic-uid/direct:dynamic",
			[]string{"TLSD_SOCKET=" + socket}}.start(t)
		if trusted {
			h.send("Backend").gives(7, "openssl")
			continue
		}
		h.send("NewClient", "h", 1).fails(
			"tls.NewClient: backend: no tlsd: " + socket + ": refused, because user " +
				"65534 has made the socket; user 65534 is not root, not the user " +
				"of this process (user 0), and not in trusted-users of " +
				"/etc/tlsd/client.conf")
	}
}

// After sudo -E, XDG_RUNTIME_DIR still names the directory of the user that called sudo. The plugin
// must not make files of root in this directory, because the user's own tlsd could not start then.
func TestARuntimeDirectoryOfAnotherUserIsNotUsed(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	const uid = 54322 // of this test alone, so that no real directory is touched
	private := "/tmp/tlsd-" + strconv.Itoa(uid)
	if _, err := os.Lstat(private); err == nil {
		t.Skipf("%s is in use", private)
	}
	defer os.RemoveAll(private)
	for name, change := range map[string]func(dir string) error{
		"belongs to another user": func(dir string) error { return os.Chmod(dir, 0o777) },
		"is open to other users": func(dir string) error {
			return firstError(os.Chown(dir, uid, uid), os.Chmod(dir, 0o770))
		},
	} {
		dir := nowhere(t)
		// The plugin must not connect to this stand-in, because of its directory.
		d := standInAt(t, filepath.Join(dir, "tlsd.sock"))
		if err := firstError(change(dir), os.Chmod(d.path, 0o777)); err != nil {
			t.Fatal(err)
		}
		h := startHostWith(t, hostOptions{flavour: plain,
			wrapper: []string{testkit.Tool(t, "setpriv"),
				"--reuid=" + strconv.Itoa(uid),
				"--clear-groups"},
			env: []string{"XDG_RUNTIME_DIR=" + dir, "TLSD_AUTOSTART=1",
				"TLSD_EXE=/nonexistent"}})
		h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: "+
			"XDG_RUNTIME_DIR="+dir+" is not used, because it "+name,
			"starting /nonexistent")
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("%s contains %v, %v; want only the socket", dir, files, err)
		}
		if err := os.RemoveAll(private); err != nil {
			t.Fatal(err)
		}
	}
}

// If another user's file in the runtime directory stops the private tlsd, the error names the file.
func TestWhatIsInTheWayOfAPrivateTLSDIsNamed(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	dir := nowhere(t)
	lock := dir + "/tlsd.sock.lock"
	if err := firstError(os.WriteFile(lock, nil, 0o600),
		os.Chown(dir, 54323, 54323)); err != nil {
		t.Fatal(err)
	}
	h := startHostWith(t, hostOptions{flavour: plain,
		wrapper: []string{testkit.Tool(t, "setpriv"),
			"--reuid=54323", "--clear-groups"},
		env: []string{"XDG_RUNTIME_DIR=" + dir, "TLSD_AUTOSTART=1",
			"TLSD_EXE=" + testkit.Tool(t, "false")}})
	h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ",
		"ended before it listened", lock+" belongs to user 0 and is in the way; remove it")
}

// Any user can make the directory /tmp/tlsd-UID of another user. If the directory does not belong
// to the host's user, the plugin does not connect to a socket in the directory.
func TestASocketInAForeignPrivateDirectoryIsNotConnectedTo(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	if _, err := os.Lstat("/run/tlsd.sock"); err == nil {
		t.Skip("this machine runs a tlsd of its own")
	}
	const uid = 54324
	private := "/tmp/tlsd-" + strconv.Itoa(uid)
	if err := os.Mkdir(private, 0o755); err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(private)
	d := standInAt(t, private+"/tlsd.sock") // root runs it, and the plugin would trust root
	if err := os.Chmod(d.path, 0o777); err != nil {
		t.Fatal(err)
	}
	h := startHostWith(t, hostOptions{flavour: plain,
		wrapper: []string{testkit.Tool(t, "setpriv"),
			"--reuid=" + strconv.Itoa(uid), "--clear-groups"}})
	h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ",
		private+": belongs to another user")
}

// clientconf.h and docs/user.md describe each key of client.conf.
func TestClientConfIsDescribedWhereItIsRead(t *testing.T) {
	t.Parallel()
	header, err := os.ReadFile(sources + "/clientconf.h")
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile("../../docs/user.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"socket", "autostart", "trusted-users"} {
		if !bytes.Contains(header, []byte(key+" = ")) ||
			!strings.Contains(string(guide), fmt.Sprintf("| `%s` |", key)) {
			t.Errorf("the key %s is not described in clientconf.h and docs/user.md",
				key)
		}
	}
}
