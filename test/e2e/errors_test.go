package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A call that fails ends the script, and the script prints the text of the error.

// A call is a call of a script: the name of a function in the namespace tls, and the arguments. The
// first handle of a script is 1.
type call []any

// statement writes the call as a line of a script.
func (c call) statement() string {
	var args []string
	for _, a := range c[1:] {
		if s, ok := a.(string); ok {
			args = append(args, strconv.Quote(s))
		} else {
			args = append(args, fmt.Sprint(a))
		}
	}
	return fmt.Sprintf("tls.%s(%s);\n", c[0], strings.Join(args, ", "))
}

// If the last call of a script fails, the script prints one line and ends with exit status 1. The
// line has the script's name, the number of the call's line, and the exact text of tls.LastError.
func TestFailedCallEndsTheScriptWithLastError(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	elsewhere := httpsServer(t,
		ca.Issue(t, testcert.Leaf{CN: "example.com", DNS: []string{"example.com"}}))
	d := testd.Start(t)
	stub := testd.Start(t, "--libssl=/nonexistent.so")
	refused := testkit.Port(t)
	untrusted := httpsServer(t, cert)
	missing := filepath.Join(t.TempDir(), "missing.key")
	absent := filepath.Join(testkit.Dir(t), "absent.sock")
	mutual12, mutual13 := mutualServer(t, ca, cert, tls.VersionTLS12),
		mutualServer(t, ca, cert, tls.VersionTLS13)
	const noCertificate = "the server asked for a client certificate, and none is set"

	for name, c := range map[string]struct {
		env   []string
		calls []call
		want  []string // parts of the error's text
	}{
		"refused port": {env(d), []call{{"NewClient", "localhost", refused}},
			[]string{"localhost", strconv.Itoa(refused), "connection refused"}},
		"untrusted certificate": {env(d), []call{{"NewClient", "localhost", untrusted},
			{"Handshake", 1}},
			[]string{"unable to get local issuer certificate", "/CN=localhost",
				"trust store: "}},
		"silent server": {env(d),
			[]call{{"SetCaBundle", ca.File}, {"NewClient", "localhost", untrusted},
				{"Handshake", 1}, {"SetTimeout", 1, 100}, {"Read", 1, 10}},
			[]string{"tls.Read: handle 1: ", "no data within 100ms"}},
		"wrong name": {env(d), []call{{"SetCaBundle", ca.File},
			{"NewClient", "127.0.0.1", elsewhere}, {"Handshake", 1}},
			[]string{"IP address mismatch"}},
		"wrong argument": {env(d), []call{{"NewClient", "localhost", untrusted},
			{"SetInsecureSkipVerify", 1, 2}},
			[]string{"on"}},
		"missing key file": {env(d), []call{{"NewServerContext", cert.CertFile, missing}},
			[]string{missing, "no such file or directory"}},
		"missing CA bundle": {env(d), []call{{"SetCaBundle", missing}},
			[]string{missing, "no such file or directory"}},
		"closed handle": {env(d), []call{{"NewClient", "localhost", untrusted},
			{"Close", 1}, {"Close", 1}},
			[]string{"1"}},
		"the system's store again": {env(d),
			[]call{{"SetCaBundle", ca.File}, {"NewClient", "localhost", untrusted},
				{"Handshake", 1},
				{"SetCaBundle", ""}, {"NewClient", "localhost", untrusted},
				{"Handshake", 2}},
			[]string{"unable to get local issuer certificate", "trust store: "}},
		"a URL": {env(d), []call{{"NewClient", "https://localhost/", untrusted}},
			[]string{`"https://localhost/"`, "it is a URL; give its host alone"}},
		"brackets around a name": {env(d), []call{{"NewClient", "[localhost]", untrusted}},
			[]string{"brackets are for an IPv6 address"}},
		"nobody answers": {env(d),
			[]call{{"SetTimeout", 0, 100},
				{"NewClient", "127.0.0.1", swallowingPort(t)}},
			[]string{"no connection within 100ms"}},
		"no bound for less than no time": {env(d), []call{{"SetTimeout", 0, -1}},
			[]string{"milliseconds -1: must be between 0 and 2147483647"}},
		"no client certificate, TLS 1.2": {env(d),
			[]call{{"SetCaBundle", ca.File}, {"NewClient", "localhost", mutual12},
				{"Handshake", 1}},
			[]string{"the peer sent the alert handshake_failure (40)", noCertificate}},
		"no client certificate, TLS 1.3": {env(d),
			[]call{{"SetCaBundle", ca.File}, {"NewClient", "localhost", mutual13},
				{"Handshake", 1}, {"Read", 1, 10}},
			[]string{"the peer sent the alert certificate_required (116)",
				noCertificate}},
		"no libssl, client": {env(stub), []call{{"NewClient", "localhost", untrusted}},
			[]string{"/nonexistent.so"}},
		"no libssl, server": {env(stub),
			[]call{{"NewServerContext", cert.CertFile, cert.KeyFile}},
			[]string{"/nonexistent.so"}},
		"no daemon": {[]string{"TLSD_SOCKET=" + absent, "TLSD_AUTOSTART=0"},
			[]call{{"NewClient", "localhost", untrusted}},
			[]string{absent, "TLSD_AUTOSTART is 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := "plugin \"../plugins/tls/TlsPlugin\";\n"
			for _, call := range c.calls {
				source += call.statement()
			}
			script := writeFile(t, filepath.Join(t.TempDir(), "fails.dom"), source)
			p := domhost(script)
			p.env = c.env
			e := run(t, p)

			want := fmt.Sprintf("%s:%d: %s\n", script, len(c.calls)+1,
				lastError(t, c.env, c.calls))
			if e.status != 1 || e.stdout != "" || e.stderr != want {
				t.Errorf("status %d, want 1\nstdout %q, want none\nstderr "+
					"%q\nwant   %q",
					e.status, e.stdout, e.stderr, want)
			}
			function := c.calls[len(c.calls)-1][0].(string)
			mustContain(t, "the script", e.stderr,
				append(c.want, "tls."+function+": ")...)
		})
	}
}

// NewClient takes an IPv6 address in brackets. A timeout for NewClient does no harm if the
// connection is made in time.
func TestAScriptConnectsWithinItsBound(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	cert := ca.Issue(t, testcert.Leaf{IPs: []string{"::1"}}).TLS()
	testkit.ServeOn(t, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}),
		func(c net.Conn) { _, _ = io.WriteString(c, "here") })
	port := l.Addr().(*net.TCPAddr).Port
	p := domhost(writeFile(t, filepath.Join(t.TempDir(), "brackets.dom"), fmt.Sprintf(`tls.SetTimeout(0, 1);
tls.SetTimeout(0, %d);
tls.SetCaBundle(%q);
i32 $c = tls.NewClient("[::1]", %d);
tls.Handshake($c);
printf("%%s from %%s\n", blob.ToText(tls.Read($c, 100)), tls.Info($c, "peer-address"));
`, testkit.Patience.Milliseconds(), ca.File, port)))
	p.env = env(testd.Start(t))
	if out, want := succeed(t, p), fmt.Sprintf("here from [::1]:%d\n", port); out != want {
		t.Errorf("the script printed %q, want %q", out, want)
	}
}

// lastError makes the same calls in another host of the plugin, a Python program. It returns the
// text of tls_LastError after the call that fails.
func lastError(t *testing.T, env []string, calls []call) string {
	t.Helper()
	j, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	text := succeed(t, program{name: "python3",
		args: []string{"testdata/calls.py", testd.Plugin(t), string(j)}, env: env})
	if text == "" {
		t.Fatal("a call has failed, but tls_LastError has no text")
	}
	return text
}

// Without libssl, or without a daemon, tls.Backend is no error: it returns "stub".
func TestStubBackendIsNoError(t *testing.T) {
	t.Parallel()
	stub := testd.Start(t, "--libssl=/nonexistent.so")
	absent := filepath.Join(testkit.Dir(t), "absent.sock")
	const source = `printf("%s [%s]\n", tls.Backend(), tls.LastError());`
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"no libssl": {env(stub), "stub []\n"},
		"no daemon": {[]string{"TLSD_SOCKET=" + absent, "TLSD_AUTOSTART=0"}, "stub []\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := domhost(writeFile(t, filepath.Join(t.TempDir(), "asks.dom"), source))
			p.env = c.env
			if out := succeed(t, p); out != c.want {
				t.Errorf("the script printed tls.Backend and tls.LastError as %q, "+
					"want %q", out, c.want)
			}
		})
	}
}

// Without a daemon the plugin starts a private daemon, which ends when it has been idle for some
// time.
func TestPrivateDaemonComesAndLeaves(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	exe := filepath.Join(dir, "tlsd-of-this-test") // the processes are found by this name
	if err := os.Link(testd.Exe(t, "tlsd"), exe); err != nil {
		t.Fatal(err)
	}
	// The plugin starts the daemon with --idle-exit 60s. The wrapper adds the same flag with a
	// shorter time, and the flag that comes later counts.
	wrapper := filepath.Join(dir, "wrapper")
	text := "#!/bin/sh\necho started >>" + dir + "/starts\nexec " + exe +
		` "$@" --idle-exit=3s` + "\n"
	if err := testd.WriteProgram(wrapper, []byte(text)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range processesOf(exe) { // left only by a test that fails
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	socket := filepath.Join(dir, "tlsd.sock")
	script := writeFile(t, filepath.Join(dir, "asks.dom"), `printf("%s\n", tls.Backend());`)
	for round := 1; round <= 2; round++ {
		p := domhost(script)
		p.env = []string{"TLSD_SOCKET=" + socket, "TLSD_EXE=" + wrapper}
		if out := succeed(t, p); out != "openssl\n" {
			t.Errorf("round %d: the script printed %q, want openssl", round, out)
		}
		testkit.Until(t, "the idle private daemon ends", func() bool {
			return len(processesOf(exe)) == 0
		})
		if exists(socket) {
			t.Errorf("round %d: the private daemon has ended, "+
				"but its socket still exists", round)
		}
	}
	if got := readFile(t, filepath.Join(dir, "starts")); got != "started\nstarted\n" {
		t.Errorf("the wrapper noted these starts of a daemon: %q; want one start in each "+
			"round", got)
	}
}

// processesOf returns the processes that run the program. Only root sees the workers among them,
// because workers are not dumpable. But everybody sees the supervisor, which ends after its
// workers. So an empty list means that all processes have ended.
func processesOf(exe string) []int {
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // no error, because the pattern is valid
	for _, link := range links {
		if file, err := os.Readlink(link); err == nil && file == exe {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link))) // only digits
			pids = append(pids, pid)
		}
	}
	return pids
}

// If the worker or the daemon is killed while a script waits in a Read, the Read fails with the
// text of a lost session.
func TestKilledDaemonIsALostSession(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	port := silentServer(t, cert)
	source := fmt.Sprintf(`tls.SetCaBundle(%q);
i32 $c = tls.NewClient("localhost", %d);
tls.Handshake($c);
printf("reading\n");
tls.Read($c, 4096);
`, ca.File, port)
	for name, kill := range map[string]func(t *testing.T, d *testd.Daemon){
		"worker": func(t *testing.T, d *testd.Daemon) {
			workers := testkit.Children(d.PID)
			if len(workers) == 0 {
				t.Fatal("the daemon has no workers")
			}
			for _, w := range workers {
				// a spare worker may have ended already
				_ = syscall.Kill(w.PID, syscall.SIGKILL)
			}
		},
		"daemon": func(t *testing.T, d *testd.Daemon) {
			_ = syscall.Kill(d.PID, syscall.SIGKILL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testd.StartWith(t, testd.Options{MayFail: true})
			script := writeFile(t, filepath.Join(t.TempDir(), "reads.dom"), source)
			p := domhost(script)
			p.env = env(d)
			r := start(t, p)
			r.expect(t, "reading\n")
			kill(t, d)
			e := r.wait(t)
			if e.status != 1 || !strings.HasPrefix(e.stderr, script+":5: tls.Read: ") ||
				strings.Count(e.stderr, "\n") != 1 {
				t.Errorf("the script's tls.Read must fail, with one line: "+
					"status %d, stderr %q", e.status, e.stderr)
			}
			mustContain(t, "the script", e.stderr, "lost")
		})
	}
}
