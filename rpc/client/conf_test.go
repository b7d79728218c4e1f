package client

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// passwd is a user database in the form of /etc/passwd.
const passwd = "root:x:0:0::/:\nsvc:x:999:999::/:\nbad:x:4294967295:1::/:\nshort\n"

// confFile writes a client.conf with the text, and a user database. It skips the test without root,
// because client.conf must belong to root.
func confFile(t *testing.T, text string) (path string, users userDatabase) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, because the file must belong to root")
	}
	dir := t.TempDir()
	path = filepath.Join(dir, "client.conf")
	users = userDatabase{filepath.Join(dir, "passwd"), dir}
	for _, err := range []error{
		os.WriteFile(path, []byte(text), 0o644),
		os.WriteFile(users.passwd, []byte(passwd), 0o644),
		os.Symlink("61234", filepath.Join(dir, "direct:dynamic")),
		os.Symlink("x", filepath.Join(dir, "direct:odd")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return path, users
}

// client.conf says where the system's daemon is, whether a private daemon may be started, and which
// users are trusted. test/plugin tests the plugin with the same rules.
func TestConfSaysWhereTheSystemsDaemonIs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Conf{
		"":                          {},
		"# nothing\n\n \t\r\n":      {},
		"socket = /run/x\n":         {Socket: "/run/x"},
		"\tsocket=/run/a = b \r\n":  {Socket: "/run/a = b"},
		"autostart = no":            {Autostart: "no"},
		" autostart =yes\n#x = y\n": {Autostart: "yes"},
		"trusted-users = svc, 7\tdynamic  odd bad nobody ../x 4294967295 +5": {
			TrustedUsers: []uint32{999, 7, 61234},
			UnknownUsers: []string{"odd", "bad", "nobody", "../x", "4294967295", "+5"}},
		"trusted-users =": {},
		"socket = /s\nautostart = yes\ntrusted-users = root": {Socket: "/s",
			Autostart: "yes", TrustedUsers: []uint32{0}},
	} {
		want.There = true
		path, users := confFile(t, text)
		if got, err := readConf(path, users); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("client.conf %q gives %+v, %v; want %+v", text, got, err, want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if got, err := readConf(path, users); err != nil || got.There {
			t.Errorf("without client.conf readConf returns %+v, %v; want There to be "+
				"false, and no error", got, err)
		}
	}
}

// readConf refuses a client.conf that has a mistake, or that other users could change. The error
// says how to mend the file.
func TestBadConfIsAnError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"x = 1":                            `line 1: want "key = value" with the key socket, autostart or trusted-users`,
		"\n\nautostrat = yes":              "line 3: ",
		"Autostart = yes":                  "line 1: want",
		"autostart":                        `line 1: want "key = value"`,
		"= yes":                            "line 1: want",
		"autostart = 1":                    "autostart: want yes or no",
		"autostart =":                      "autostart: want yes or no",
		"socket = run/x":                   "socket: want an absolute path",
		"socket =":                         "socket: want an absolute path",
		"socket = /" + sixty + sixty:       "at most 107 bytes",
		"socket = /a\nsocket = /b":         "line 2: the key is there twice",
		"socket = /a\x00":                  "zero byte",
		strings.Repeat("#", maxConf+1):     "more than 65535 bytes",
		"autostart = yes # as always":      "autostart: want yes or no",
		"trusted-users = 1\ntrusted-users": "line 2: ",
	} {
		path, users := confFile(t, text)
		if got, err := readConf(path, users); err == nil ||
			!strings.Contains(err.Error(), want) ||
			!strings.HasPrefix(err.Error(), path) {
			t.Errorf("client.conf %.40q gives %+v, %v; want the path and %q", text, got,
				err, want)
		}
	}
	path, users := confFile(t, "autostart = no")
	// The order of a map is random. So each step begins and ends with a good file.
	for mend, spoil := range map[string]func() error{
		"chmod go-w": func() error { return os.Chmod(path, 0o666) },
		"give it to root": func() error {
			return errors.Join(os.Chmod(path, 0o644), os.Chown(path, 1234, 0))
		},
		"not a regular file": func() error {
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o755))
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := readConf(path, users); err == nil ||
			!strings.Contains(err.Error(), mend) {
			t.Errorf("the error is %v; want %q in it", err, mend)
		}
		os.RemoveAll(path)
		os.WriteFile(path, nil, 0o644)
	}
}

var sixty = strings.Repeat("x", 60)

// The client talks to a daemon of root, of its own user (here 1000), or of a user that a good
// client.conf trusts. It talks to no other daemon.
func TestTheClientTrustsDaemonsOfTrustedUsers(t *testing.T) {
	t.Parallel()
	read := func() (Conf, error) { return Conf{TrustedUsers: []uint32{7}}, nil }
	broken := errors.New("broken")
	for _, tc := range []struct {
		uid  uint32
		read func() (Conf, error)
		ok   bool
	}{
		{0, nil, true}, {1000, nil, true}, {7, read, true}, {8, read, false},
		{7, func() (Conf, error) { return Conf{TrustedUsers: []uint32{7}}, broken }, false},
	} {
		err := Peer{UID: tc.uid}.checkTrusted("/s", 1000, tc.read)
		var stranger *StrangerError
		if (err == nil) != tc.ok || err != nil && !errors.As(err, &stranger) {
			t.Errorf("a daemon of user %d: %v; want it trusted: %v", tc.uid, err, tc.ok)
		}
	}
}

// The client refuses a private directory in which another user could have made the socket. A
// missing directory is no error.
func TestADirectoryThatIsNotPrivateIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("good"), 0o700),
		os.Mkdir(at("open"), 0o750),
		os.Symlink("good", at("link")),
		os.WriteFile(at("file"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"good": "",
		"none": "",
		"open": "is open to other users",
		"link": "is no directory",
		"file": "is no directory",
	} {
		if err := checkPrivateDir(at(name)); (err == nil) != (want == "") ||
			err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("the directory %s gives %v, want %q", name, err, want)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(at("good"), 1234, 0); err != nil {
			t.Fatal(err)
		}
		if err := checkPrivateDir(at("good")); err == nil ||
			!strings.Contains(err.Error(), "belongs to another user") {
			t.Errorf("a directory of another user gives %v, want an error that says so",
				err)
		}
	}
}

// noConf returns the Conf of a machine without client.conf.
func noConf() (Conf, error) { return Conf{}, nil }
