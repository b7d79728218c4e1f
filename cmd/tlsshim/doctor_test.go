package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/rpc/client"
	"tlsd/rpc/wire"
)

// healthy returns the facts of a machine without problems.
func healthy() facts {
	return facts{
		env:     map[string]string{},
		uid:     1000,
		probes:  []probe{{"/run/tlsd.sock", fileFact{mode: os.ModeSocket | 0o666}, nil}},
		answers: true,
		hello: wire.Hello{Version: 1, Capabilities: []string{"data"},
			Server: wire.Server{Name: "tlsd", Version: "1.0", PID: 12}},
		peer: client.Peer{PID: 11, UID: 0},
		info: wire.Info{Backend: "openssl",
			Libssl: wire.Libssl{Path: "/usr/lib/libssl.so.3",
				Libcrypto: "/usr/lib/libcrypto.so.3", Version: "OpenSSL 3.0.19"},
			Trust: wire.Trust{Source: "compiled-in", File: "/etc/ssl/cert.pem",
				Dir: "/etc/ssl/certs", Certificates: 140},
			Confinement: map[string]string{"landlock": "on", "seccomp": "on"}},
		tried: rehearsal{step: "asking", version: "TLSv1.3"},
		trips: []time.Duration{200 * time.Microsecond, 9 * time.Second,
			100 * time.Microsecond},
		tlsd:   []string{"/usr/bin/tlsd"},
		plugin: []string{"/usr/lib/tlsd/TlsPlugin.so"},
	}
}

// unreached returns a change of the facts: the only socket that was tried has this path and file,
// and failed with err.
func unreached(path string, file fileFact, err error) func(*facts) {
	return func(f *facts) {
		*f = facts{env: f.env, uid: f.uid, tlsd: f.tlsd, plugin: f.plugin,
			probes: []probe{{path, file, fmt.Errorf("%s: %w", path, err)}}}
	}
}

// For each problem, the doctor has a finding with a text and a remedy.
func TestEachProblemIsFoundAndMended(t *testing.T) {
	t.Parallel()
	socket := fileFact{mode: os.ModeSocket | 0o600, uid: 7, gid: 8}
	refused := func(k client.Kind, text string) func(*facts) {
		return unreached("/run/x", socket, &client.Error{Kind: k, Message: text})
	}
	stranger := &client.StrangerError{Path: "/run/x", Peer: client.Peer{UID: 7}}
	for _, tt := range []struct {
		name   string
		change func(*facts)
		// a finding must have this Check and Status, and contain this Text and Mend
		want finding
	}{
		{"no daemon", unreached("/run/x", fileFact{err: fs.ErrNotExist}, syscall.ENOENT),
			finding{"socket", fail, "/run/x: there is no such file",
				"tlsd --socket /run/x"}},
		{"a path to be quoted",
			unreached("/a b'c", fileFact{err: fs.ErrNotExist}, syscall.ENOENT),
			finding{"socket", fail, "no such file", `tlsd --socket '/a b'\''c'`}},
		{"permission denied", unreached("/run/x", socket, syscall.EACCES),
			finding{"socket", fail,
				"permission denied for user 1000 (mode 0600, user 7, group 8)",
				"--allow-uid=1000"}},
		{"permission denied on the way",
			unreached("/run/d/x", fileFact{err: fs.ErrPermission}, syscall.EACCES),
			finding{"socket", fail, "permission denied for user 1000",
				"each directory of the socket's path"}},
		{"stale socket", unreached("/run/x", socket, syscall.ECONNREFUSED),
			finding{"socket", fail, "no process listens", "start tlsd again"}},
		{"a file", unreached("/run/x", fileFact{}, syscall.ECONNREFUSED),
			finding{"socket", fail, "it is not a socket", "use another path"}},
		{"a directory", unreached("/run", fileFact{mode: os.ModeDir}, syscall.ECONNREFUSED),
			finding{"socket", fail, "it is a directory", "/run/tlsd.sock"}},
		{"a datagram socket", unreached("/run/x", socket, syscall.EPROTOTYPE),
			finding{"socket", fail, "another kind of socket", "use tlsd's socket"}},
		{"somebody else's", unreached("/run/x", socket, stranger),
			finding{"socket", fail,
				"user 7 runs the tlsd there, and could read all data; this user " +
					"is not root, not you (user 1000), and not in",
				"TLSD_SOCKET"}},
		{"not admitted", refused(client.KindDenied, "user 1000 may not"),
			finding{"socket", fail, "/run/x: user 1000 may not", "--allow-uid=1000"}},
		{"hangs", unreached("/run/x", socket, context.DeadlineExceeded),
			finding{"socket", fail, "does not answer in time", "--timeout"}},
		{"not tlsd", refused(client.KindLost, "no answer"),
			finding{"socket", fail, "no answer", "is not tlsd"}},
		{"full", refused(client.KindLimit, "too many sessions"),
			finding{"socket", fail, "too many sessions", "log of tlsd"}},
		{"another release", unreached("/run/x", socket, client.ErrVersion),
			finding{"socket", fail, "no version of the protocol in common",
				"same release"}},
		{"anything else", unreached("/run/x", socket, syscall.EIO),
			finding{"socket", fail, "input/output error", "connect(2)"}},

		{"the first of two sockets is missing", func(f *facts) {
			f.probes = append([]probe{{"/run/user/1000/tlsd.sock",
				fileFact{err: fs.ErrNotExist}, syscall.ENOENT}}, f.probes...)
		}, finding{"socket", ok, "/run/user/1000/tlsd.sock: there is no such file", ""}},
		{"the first of two sockets is stale", func(f *facts) {
			f.probes = append([]probe{{"/run/user/1000/tlsd.sock", socket,
				syscall.ECONNREFUSED}}, f.probes...)
		}, finding{"socket", warn, "no process listens", "start tlsd again"}},

		{"a second socket", func(f *facts) { f.unused = []string{"/run/tlsd/tlsd.sock"} },
			finding{"socket", ok, "/run/tlsd/tlsd.sock: not used", ""}},
		{"no client.conf", func(*facts) {},
			finding{"client.conf", ok, "there is no /etc/tlsd/client.conf", ""}},
		{"client.conf", func(f *facts) {
			f.conf = client.Conf{There: true, Socket: "/run/x",
				TrustedUsers: []uint32{7, 8}}
		}, finding{"client.conf", ok,
			"socket=/run/x, autostart=(not set), trusted-users=7 8", ""}},
		{"client.conf with an unknown user", func(f *facts) {
			f.conf = client.Conf{There: true, UnknownUsers: []string{"x"}}
		}, finding{"client.conf", warn, "unknown users: x", "numbers"}},
		{"a bad client.conf", func(f *facts) { f.confErr = errors.New("line 3: what?") },
			finding{"client.conf", fail, "line 3: what?", "administrator"}},
		{"the system's daemon is down", func(f *facts) {
			unreached("/run/x", socket, syscall.ECONNREFUSED)(f)
			f.conf = client.Conf{There: true, Socket: "/run/x"}
		}, finding{"autostart", warn,
			"starts no private one, because /etc/tlsd/client.conf names the system's " +
				"socket", "start the system's tlsd"}},
		{"the system's daemon is down, and autostart forbidden", func(f *facts) {
			unreached("/run/x", socket, syscall.ECONNREFUSED)(f)
			f.conf = client.Conf{There: true, Autostart: "no"}
		}, finding{"autostart", warn, "has autostart = no", "start the system's tlsd"}},
		{"the system's socket is named", func(f *facts) {
			unreached("/run/tlsd.sock", socket, syscall.ENOENT)(f)
			f.env["TLSD_SOCKET"] = "/run/tlsd.sock"
		}, finding{"autostart", warn, "TLSD_SOCKET names the system's socket",
			"start the system's tlsd"}},
		{"the system's socket is there", func(f *facts) {
			unreached("/run/tlsd.sock", socket, syscall.ECONNREFUSED)(f)
			f.systems = []string{"/run/tlsd.sock"}
		}, finding{"autostart", warn, "the system's socket /run/tlsd.sock exists",
			"start the system's tlsd"}},

		{"root's daemon", func(*facts) {},
			finding{"daemon", ok,
				"tlsd 1.0; socket of process 11, run by root (user 0); session " +
					"served by process 12", ""}},
		{"my daemon", func(f *facts) { f.peer.UID = 1000 },
			finding{"daemon", ok, "run by you (user 1000)", ""}},
		{"says nothing of itself", func(f *facts) { f.infoErr = errors.New("broken") },
			finding{"daemon", fail, "broken", "log of tlsd"}},
		{"protocol", func(*facts) {},
			finding{"protocol", ok, "version 1, capabilities data", ""}},
		{"stub", func(f *facts) {
			const why = "libssl.so.3: cannot open shared object file"
			f.info = wire.Info{Backend: "stub", Libssl: wire.Libssl{Error: why}}
		}, finding{"backend", fail,
			"stub: no usable OpenSSL: libssl.so.3: cannot open", "--libssl PATH"}},
		{"stub without a reason", func(f *facts) { f.info = wire.Info{Backend: "stub"} },
			finding{"backend", fail, "no reason", "libssl3"}},
		{"library", func(*facts) {},
			finding{"libssl", ok, "OpenSSL 3.0.19, /usr/lib/libssl.so.3", ""}},
		{"libcrypto", func(*facts) {},
			finding{"libcrypto", ok, "/usr/lib/libcrypto.so.3", ""}},
		{"trust", func(*facts) {},
			finding{"trust", ok,
				"140 certificates in /etc/ssl/cert.pem, /etc/ssl/certs " +
					"(compiled-in)", ""}},
		{"no trust", func(f *facts) {
			f.info.Trust = wire.Trust{Source: "compiled-in", Dir: "/etc/ssl/certs"}
		}, finding{"trust", warn, "no trusted certificates in /etc/ssl/certs",
			"tls.SetCaBundle"}},
		{"confined", func(*facts) {}, finding{"confinement", ok, "landlock, seccomp", ""}},
		{"not confined", func(f *facts) { f.info.Confinement = nil },
			finding{"confinement", warn, "does not confine", "--confine=off"}},
		{"confined in part",
			func(f *facts) { f.info.Confinement["landlock"] = "the kernel has none" },
			finding{"confinement", warn,
				"seccomp; not in force: landlock (the kernel has none)",
				"newer kernel"}},
		{"no policy", func(*facts) {}, finding{"policy", ok, "restricts nothing", ""}},
		{"policy", func(f *facts) {
			f.info.Policy = map[string]any{"min-tls": "1.3", "listen": []any{},
				"destinations": []any{"a:1", "b:2"}, "insecure-skip-verify": false}
		}, finding{"policy", ok,
			"destinations=a:1 b:2; insecure-skip-verify=false; listen=none; " +
				"min-tls=1.3", ""}},
		{"round trip", func(*facts) {},
			finding{"round trip", ok, "200µs (median of 3)", ""}},
		{"slow", func(f *facts) { f.trips = []time.Duration{time.Second} },
			finding{"round trip", warn, "1s", "busy"}},
		{"lost on the way", func(f *facts) { f.tripErr = errors.New("lost") },
			finding{"round trip", fail, "lost", "log of tlsd"}},

		{"a conversation", func(*facts) {},
			finding{"conversation", ok, "with TLSv1.3; the client has verified", ""}},
		{"one that is forbidden", func(f *facts) {
			f.tried = rehearsal{step: "listening",
				err: &client.Error{Kind: client.KindDenied,
					Message: "not allowed (listen)"}}
		}, finding{"conversation", ok, "not tried: listening: not allowed (listen)", ""}},
		{"a library without ciphers", func(f *facts) {
			f.tried = rehearsal{step: "making a server's context",
				err: &client.Error{Kind: client.KindFile,
					Message: "SSL_CTX_new: no ciphers"}}
		}, finding{"conversation", fail,
			"making a server's context: SSL_CTX_new: no ciphers", "openssl.cnf"}},
		{"a daemon that sees other files", func(f *facts) {
			f.tried = rehearsal{step: "reading",
				err: &client.Error{Kind: client.KindFile,
					Message: "/tmp/x: no such file",
					Data:    wire.ErrorData{Errno: "ENOENT"}}}
		}, finding{"conversation", fail, "reading: /tmp/x: no such file", "PrivateTmp="}},
		{"a conversation that hangs", func(f *facts) {
			f.tried = rehearsal{step: "a handshake", err: context.DeadlineExceeded}
		}, finding{"conversation", fail, "a handshake: context deadline exceeded",
			"log of tlsd"}},
		{"names", func(*facts) {}, finding{"names", ok, "/etc/hosts and by DNS", ""}},
		{"modules that are not asked",
			func(f *facts) { f.modules = []string{"mdns4_minimal", "myhostname"} },
			finding{"names", warn, "does not ask mdns4_minimal, myhostname",
				"/etc/hosts"}},

		{"TLSD_SOCKET", func(f *facts) { f.env["TLSD_SOCKET"] = "/x" },
			finding{"environment", ok, "TLSD_SOCKET=/x: the only socket", ""}},
		{"relative TLSD_SOCKET", func(f *facts) { f.env["TLSD_SOCKET"] = "x" },
			finding{"environment", warn, "working directory", "absolute"}},
		{"TLSD_SOCKET not set", func(*facts) {},
			finding{"environment", ok, "TLSD_SOCKET is not set", ""}},
		{"TLSD_EXE", func(f *facts) { f.env["TLSD_EXE"] = "/bin/tlsd" },
			finding{"environment", ok, "TLSD_EXE=/bin/tlsd", ""}},
		{"bad TLSD_EXE",
			func(f *facts) { f.env["TLSD_EXE"] = "/x"; f.exeErr = fs.ErrPermission },
			finding{"environment", warn,
				"TLSD_EXE=/x: cannot be started: permission denied",
				"name an executable"}},
		{"TLSD_AUTOSTART=0", func(f *facts) { f.env["TLSD_AUTOSTART"] = "0" },
			finding{"environment", ok, "does not start a daemon", ""}},
		{"TLSD_AUTOSTART=1", func(f *facts) { f.env["TLSD_AUTOSTART"] = "1" },
			finding{"environment", ok, "TLSD_AUTOSTART=1", ""}},
		{"TLSD_AUTOSTART=0 and no daemon", func(f *facts) {
			unreached("/run/x", socket, syscall.ENOENT)(f)
			f.env["TLSD_AUTOSTART"] = "0"
		}, finding{"environment", warn, "none answers", "unset it"}},
		{"XDG_RUNTIME_DIR", func(f *facts) {
			f.env["XDG_RUNTIME_DIR"] = "/run/user/1000"
			f.runtimeDir = fileFact{mode: os.ModeDir, uid: 1000}
		}, finding{"environment", ok, "XDG_RUNTIME_DIR=/run/user/1000", ""}},
		{"relative XDG_RUNTIME_DIR", func(f *facts) { f.env["XDG_RUNTIME_DIR"] = "run" },
			finding{"environment", warn, "not absolute", "absolute"}},
		{"XDG_RUNTIME_DIR of another user", func(f *facts) {
			f.env["XDG_RUNTIME_DIR"] = "/run/user/0"
			f.runtimeDir = fileFact{mode: os.ModeDir}
		}, finding{"environment", warn, "belongs to user 0, not to you (user 1000)",
			"sudo"}},
		{"XDG_RUNTIME_DIR that others can write to", func(f *facts) {
			f.env["XDG_RUNTIME_DIR"] = "/run/user/1000"
			f.runtimeDir = fileFact{mode: os.ModeDir | 0o777, uid: 1000}
		}, finding{"environment", warn, "not used: its mode is 0777", "chmod go-w"}},
		{"XDG_RUNTIME_DIR missing", func(f *facts) {
			f.env["XDG_RUNTIME_DIR"], f.runtimeDir = "/x", stat("/nonexistent")
		}, finding{"environment", warn, "no such file", "unset XDG_RUNTIME_DIR"}},
		{"XDG_RUNTIME_DIR a file", func(f *facts) { f.env["XDG_RUNTIME_DIR"] = "/x" },
			finding{"environment", warn, "not a directory", "unset it"}},
		{"SSL_CERT_FILE", func(f *facts) { f.env["SSL_CERT_FILE"] = "/x" },
			finding{"environment", warn, "does not see this", "where tlsd is started"}},
		{"SSL_CERT_DIR of tlsd too",
			func(f *facts) { f.env["SSL_CERT_DIR"] = "/etc/ssl/certs" },
			finding{"environment", ok, "tlsd uses the same", ""}},
		{"SSL_CERT_FILE and no daemon", func(f *facts) {
			unreached("/run/x", socket, syscall.ENOENT)(f)
			f.env["SSL_CERT_FILE"] = "/x"
		}, finding{"environment", ok, "a tlsd that you start by hand", ""}},

		{"tlsd", func(*facts) {}, finding{"tlsd", ok, "/usr/bin/tlsd", ""}},
		{"no tlsd", func(f *facts) { f.tlsd = nil },
			finding{"tlsd", warn, "not found", "TLSD_EXE"}},
		{"no plugin", func(f *facts) { f.plugin = nil },
			finding{"TlsPlugin.so", warn, "not found", "plugin line"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := healthy()
			tt.change(&f)
			r := judge(f)
			if !slices.ContainsFunc(r.Findings, func(g finding) bool {
				return g.Check == tt.want.Check && g.Status == tt.want.Status &&
					strings.Contains(g.Text, tt.want.Text) &&
					strings.Contains(g.Mend, tt.want.Mend)
			}) {
				t.Errorf("the doctor must report the finding %+v; it reports\n%s",
					tt.want, r.text())
			}
			for _, g := range r.Findings {
				if (g.Mend == "") != (g.Status == ok) {
					t.Errorf("%+v: want a remedy for a problem, and none for "+
						"a finding that is ok", g)
				}
				if strings.Contains(g.Text, "%!") ||
					strings.Contains(g.Mend, "%!") {
					t.Errorf("%+v: a text has an error of package fmt", g)
				}
			}
			if r.Usable != (f.answers && tt.want.Status != fail) {
				t.Errorf("Usable is %v; want true if tlsd answers and no finding "+
					"fails", r.Usable)
			}
			if r.Socket != "" != f.answers {
				t.Errorf("Socket is %q; want a path only if tlsd answers", r.Socket)
			}
		})
	}
}

// The function found looks for a program at the path that the user has chosen, in the folder of
// tlsshim, in the folder where packages install the program, and in the absolute folders of $PATH.
// It returns each file once.
func TestProgramsAreFoundBesideTlsshimAndInPATH(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"bin/tlsshim", "bin/x", "lib/x", "other/x", "named"} {
		path := dir + "/" + name
		if err := os.MkdirAll(path[:strings.LastIndex(path, "/")], 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/bin/d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("other", dir+"/same"); err != nil {
		t.Fatal(err)
	}
	folders := []string{"relative", dir + "/other", dir + "/same", dir + "/nonexistent",
		dir + "/bin", ""}
	got := found(dir+"/named", dir+"/bin/tlsshim", strings.Join(folders, ":"), "x", "../lib/x")
	want := []string{dir + "/named", dir + "/bin/x", dir + "/lib/x", dir + "/other/x"}
	if !slices.Equal(got, want) {
		t.Errorf("found returns the programs %q, want %q", got, want)
	}
	if got := found("", dir+"/bin/tlsshim", "", "d", "d"); got != nil {
		t.Errorf("found returns %q, which is a directory; want nothing", got)
	}
}

// nsswitch.conf names modules that programs ask for the addresses of hosts. The doctor names those
// modules that tlsd does not ask.
func TestModulesThatTLSDDoesNotAsk(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                                      nil,
		"passwd: files sss\nhosts: files dns\n": nil,
		"hosts:files mdns4_minimal [NOTFOUND=return] dns myhostname # x y\n": {
			"mdns4_minimal", "myhostname"},
		"  hosts:\tresolve [ !UNAVAIL = return ] files[SUCCESS=continue]wins dns\n" +
			"# hosts: x": {"resolve", "wins"},
	} {
		if got := foreignModules(text); !slices.Equal(got, want) {
			t.Errorf("for the nsswitch.conf %q the modules are %q, want %q", text, got,
				want)
		}
	}
}
