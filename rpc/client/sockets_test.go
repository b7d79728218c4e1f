package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TLSD_SOCKET, client.conf and XDG_RUNTIME_DIR decide which sockets the client tries, and in which
// order. The client does not use a runtime directory that another user could change.
func TestSocketsAreSearchedInOrder(t *testing.T) {
	t.Parallel()
	private := fmt.Sprintf("/tmp/tlsd-%d/tlsd.sock", os.Geteuid())
	const run, folder = "/run/tlsd.sock", "/run/tlsd/tlsd.sock"
	open, own := t.TempDir(), t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	foreign := "/"
	if os.Geteuid() == 0 {
		foreign = t.TempDir()
		if err := os.Chown(foreign, 1234, 0); err != nil {
			t.Fatal(err)
		}
	}
	system := Conf{There: true, Socket: "/run/x"}
	both := Conf{There: true, Socket: "/run/x", Autostart: "yes"}
	for _, tt := range []struct {
		name, socket, runtime string
		conf                  Conf
		want                  []string
	}{
		{"nothing set", "", "", Conf{}, []string{run, folder, private}},
		{"a relative runtime directory", "", "run", Conf{}, []string{run, folder, private}},
		{"a runtime directory", "", own, Conf{}, []string{own + "/tlsd.sock", run, folder}},
		{"one that is not there", "", "/run/user/none", Conf{},
			[]string{"/run/user/none/tlsd.sock", run, folder}},
		{"one of another user", "", foreign, Conf{}, []string{run, folder, private}},
		{"one that others can write to", "", open, Conf{}, []string{run, folder, private}},
		{"a socket alone", "/tmp/x", "", Conf{}, []string{"/tmp/x"}},
		{"a socket wins", "/tmp/x", own, system, []string{"/tmp/x"}},
		{"the system's", "", own, system, []string{"/run/x"}},
		{"the system's, and a private one", "", own, both,
			[]string{"/run/x", own + "/tlsd.sock"}},
		{"the system's, and a private one elsewhere", "", "", both,
			[]string{"/run/x", private}},
	} {
		env := map[string]string{"TLSD_SOCKET": tt.socket, "XDG_RUNTIME_DIR": tt.runtime}
		got := DefaultSockets(func(k string) string { return env[k] }, tt.conf)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// listen makes a socket at the path. The script is tlsd's part for the first program that connects.
func listen(t *testing.T, path string, script func(*standIn)) {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if conn, err := l.Accept(); err == nil {
			play(t, conn, script)
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
}

// DialFirst takes the first socket whose daemon serves the client. If no daemon serves the client,
// the error names each socket with the reason.
func TestTheFirstSocketThatAnswersIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing, stale, file, denies, good := dir+"/missing", dir+"/stale", dir+"/file",
		dir+"/denies", dir+"/good"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listen(t, denies, func(s *standIn) {
		s.say(`{"jsonrpc":"2.0","id":null,"error":{"code":-32012,"message":"not you","data":{"kind":"denied"}}}` + "\n")
	})
	listen(t, good, func(s *standIn) {
		s.result(s.expect("tls.Hello", ""), `{"version":1,"capabilities":["data"],"server":{"name":"stand-in"}}`)
		s.end()
	})
	long := dir + "/" + strings.Repeat("x", 110)

	bad := []string{missing, stale, file, denies, long}
	c, path, err := DialFirst(t.Context(), append(bad, good))
	if err != nil || path != good {
		t.Fatalf("DialFirst takes %q, %v; want %q", path, err, good)
	}
	c.Close()

	_, _, err = DialFirst(t.Context(), []string{missing, stale, file, long})
	var none *NoDaemonError
	if !errors.As(err, &none) || len(none.Tried) != 4 {
		t.Fatalf("no socket works, and the error is %v; want 4 attempts in it", err)
	}
	for _, path := range []string{missing, stale, file, long} {
		if !strings.Contains(err.Error(), path+":") {
			t.Errorf("%s is not named in %q", path, err)
		}
	}
	if !strings.Contains(none.Tried[3].Err.Error(), "at most 107") {
		t.Errorf("the length of a path is not explained: %v", none.Tried[3].Err)
	}
	if !errors.Is(none.Tried[0].Err, fs.ErrNotExist) ||
		!errors.Is(none.Tried[1].Err, syscall.ECONNREFUSED) {
		t.Errorf("the attempts do not wrap the system's errors, ENOENT and ECONNREFUSED: "+
			"%v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = DialFirst(ctx, []string{good, denies})
	if !errors.Is(err, context.Canceled) || !errors.As(err, &none) || len(none.Tried) != 1 {
		t.Errorf("the error is %v, want context.Canceled after one attempt", err)
	}
}

// Without client.conf, the client trusts only daemons of root and of its own user.
func TestOnlyRootAndTheCallerAreTrusted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		uid, euid uint32
		ok        bool
	}{{0, 0, true}, {0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {1000, 0, false},
		{4294967295, 1000, false}} {
		err := Peer{PID: 1, UID: tt.uid}.checkTrusted("/s", int(tt.euid), noConf)
		if errors.As(err, new(*StrangerError)) == tt.ok || (err == nil) != tt.ok {
			t.Errorf("a daemon of user %d, a client of user %d: %v; want trust: %v",
				tt.uid, tt.euid, err, tt.ok)
		}
	}
}

// Peer returns the process, the user and the group of the daemon.
func TestThePeerIsWhoMadeTheSocket(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	listen(t, path, func(s *standIn) {
		s.result(s.expect("tls.Hello", ""), `{"version":1,"capabilities":["data"],"server":{"name":"stand-in"}}`)
		s.end()
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if want := (Peer{os.Getpid(), uint32(os.Getuid()), uint32(os.Getgid())}); c.Peer() != want {
		t.Errorf("Peer returns %+v, want %+v", c.Peer(), want)
	}
}

// If tlsd denies the user, Dial returns tlsd's reason and the path of the socket.
func TestADeniedUserLearnsIt(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	listen(t, path, func(s *standIn) {
		s.say(`{"jsonrpc":"2.0","id":null,"error":{"code":-32012,` +
			`"message":"user 7 may not","data":{"kind":"denied"}}}` + "\n")
	})
	_, err := Dial(t.Context(), path)
	if e := wantKind(t, err, KindDenied); e.Message != "user 7 may not" ||
		!strings.Contains(err.Error(), path) {
		t.Errorf("the error is %v; want tlsd's reason and the path", err)
	}
}
