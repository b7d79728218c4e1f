package domhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tlsd/test/rules/reference"
)

// domhost finds and loads plugins, and passes arguments and results.

// withFake runs a script with the fake plugin. It returns the result, and the calls that the plugin
// got; nil if none.
func withFake(t *testing.T, exe, text string) (result, []string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	got := runScript(t, exe, text, []string{"DOMHOST_PLUGIN_PATH=" + filepath.Dir(fakePlugin),
		"FAKE_LOG=" + log})
	calls, err := os.ReadFile(log)
	if errors.Is(err, fs.ErrNotExist) {
		return got, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return got, strings.Split(strings.TrimSuffix(string(calls), "\n"), "\n")
}

func TestEveryFunctionPassesItsArgumentsAndResult(t *testing.T) {
	t.Parallel()
	const text = `plugin "../plugins/print/PrintPlugin"; plugin "../plugins/tls/TlsPlugin";
		i32 $c; i64 $ctx; blob $b[4];
		$c = tls.NewClient("example.com", 65535); printf("%d\n", $c);
		printf("%d\n", tls.SetInsecureSkipVerify(7, 0));
		printf("%d\n", tls.SetTimeout(7, 2147483647));
		printf("%d\n", tls.Handshake($c));
		$b[0] = 1; $b[2] = 255;
		printf("%d\n", tls.Write($c, $b));
		printf("%d\n", tls.Write($c, blob.FromText("")));
		$b = tls.Read($c, 2); printf("%d %d %d\n", $b.Length, $b[0], $b[1]);
		$b = tls.Read($c, 16777216); printf("%d %d\n", $b.Length, $b[0]);
		$b = tls.Read($c, 1); printf("%d\n", $b.Length);
		printf("%s\n", tls.PeerCertSubject($c));
		printf("%s %s %s\n", tls.Version(), tls.Version(0), tls.Version($c));
		printf("%d\n", tls.Close($c));
		$ctx = tls.NewServerContext("cert.pem", "key.pem"); printf("%ld\n", $ctx);
		printf("%d\n", tls.Accept($ctx, "127.0.0.1", 1));
		printf("%d\n", tls.CloseServerContext($ctx));
		printf("%d\n", tls.SetCaBundle("a b.pem"));
		printf("%s [%s]\n", tls.Backend(), tls.LastError());
		printf("%d\n", tls.PeerCertSubject(99).Length);
		tls.Handshake(9223372036854775807);`
	const stdout = "1\n0\n0\n0\n3\n0\n2 1 0\n1 255\n0\n/CN=fake\nFake 1.0 Fake 1.0 " +
		"TLSv1.3\n0\n2\n3\n0\n0\nopenssl []\n9000\n"
	want := []string{
		"NewClient example.com 65535", "SetInsecureSkipVerify 7 0",
		"SetTimeout 7 2147483647", "Handshake 1", "Write 1 3 0100ff", "Write 1 0 ",
		"Read 1 2", "Read 1 16777216", "Read 1 1", "PeerCertSubject 1", "Version 0",
		"Version 0", "Version 1", "Close 1", "NewServerContext cert.pem key.pem",
		"Accept 2 127.0.0.1 1", "CloseServerContext 2", "SetCaBundle a b.pem", "Backend",
		"LastError",
		"PeerCertSubject 99", "PeerCertSubject 99", // again, with a larger buffer
		"Handshake 9223372036854775807",
	}
	for _, exe := range []string{plain, sanitized} {
		got, calls := withFake(t, exe, text)
		if got != (result{stdout, "", 0}) {
			t.Errorf("%s: got %v\nwant stdout %q", exe, got, stdout)
		}
		if !reflect.DeepEqual(calls, want) {
			t.Errorf("%s: calls\n%q, want\n%q", exe, calls, want)
		}
	}
}

// Functions that the reference does not have pass their arguments and result, too: options, facts,
// plain text before TLS, and others.
func TestNewerFunctionsPassTheirArgumentsAndResult(t *testing.T) {
	t.Parallel()
	const text = `
		blob $b;
		printf("%d\n", tls.SetOption(7, "alpn", "h2,http/1.1"));
		printf("%s\n", tls.Info(7, "alpn"));
		printf("%d\n", tls.SetCertificate(7, "", "cert.pem", "key.pem"));
		printf("%d %d\n", tls.Listen(7, "127.0.0.1", 0), tls.Listen(7, "::1", 1));
		$b = tls.ReadPlain(7, 100); printf("%s\n", blob.ToText($b));
		printf("%d\n", tls.WritePlain(7, blob.FromText("STARTTLS")));
		printf("%d %d\n", tls.Wait(1000), tls.Wait(-1));
		printf("%d [%s]\n", tls.Shutdown(7), tls.ErrorKind());`
	want := []string{"SetOption 7 alpn h2,http/1.1", "Info 7 alpn", "SetCertificate 7  " +
		"cert.pem key.pem", "Listen 7 127.0.0.1 0",
		"Listen 7 ::1 1", "ReadPlain 7 100", "WritePlain 7 8 STARTTLS", "Wait 1000",
		"Wait -1", "Shutdown 7", "ErrorKind"}
	for _, exe := range []string{plain, sanitized} {
		got, calls := withFake(t, exe, text)
		if got != (result{"0\nfact\n0\n4433 1\nok\n8\n1 0\n0 []\n", "", 0}) ||
			!reflect.DeepEqual(calls, want) {
			t.Errorf("%s: got %v\ncalls %q, want\n%q", exe, got, calls, want)
		}
	}
}

// With tls.RaiseErrors(0) a failed call gives -1 or an empty value, and the script goes on. A wrong
// number or type of arguments still ends the script.
func TestRaiseErrorsSaysWhetherAFailedCallEndsTheScript(t *testing.T) {
	t.Parallel()
	const text = `
		printf("%d\n", tls.RaiseErrors(0));
		printf("%d %s [%s]\n", tls.NewClient("refused", 1), tls.ErrorKind(), tls.LastError());
		printf("%d %d\n", tls.Read(1, 0).Length, tls.ReadPlain(1, 1).Length);
		printf("[%s]\n", tls.Info(1, "unknown"));
		printf("%d\n", tls.SetOption(1, "unknown", ""));
		tls.RaiseErrors(1);
		tls.NewClient("refused", 1);
		printf("not reached\n");`
	const stdout = "0\n-1 connect [fake: connect to refused: connection refused]\n0 0\n[]\n-1\n"
	for _, exe := range []string{plain, sanitized} {
		got, _ := withFake(t, exe, text)
		if want := (result{stdout, "script.dom:8: fake: connect to refused: connection " +
			"refused\n", 1}); got != want {
			t.Errorf("%s:\ngot  %v\nwant %v", exe, got, want)
		}
		got, _ = withFake(t, exe, "tls.RaiseErrors(0);\ntls.Handshake();")
		if want := (result{"",
			"script.dom:2: tls.Handshake: takes 1 argument (handle), got 0\n",
			1}); got != want {
			t.Errorf("%s:\ngot  %v\nwant %v", exe, got, want)
		}
	}
}

func TestFailedCallStopsTheScriptWithLastErrorsText(t *testing.T) {
	t.Parallel()
	for call, reason := range map[string]string{
		`tls.NewClient("refused", 443)`: "fake: connect to refused: connection refused",
		`tls.NewClient("two-lines", 1)`: "fake: first second",
		`tls.NewClient("silent", 1)`:    "tls.NewClient: failed, and tls.LastError() is empty",
		`tls.NewClient("wordy", 1)`:     strings.Repeat("w", 9000),
		`tls.Accept(1, "refused", 1)`:   "fake: connect to refused: connection refused",
		// The plugin, not domhost, checks these ranges.
		`tls.NewClient("a", 0)`:     "fake: port 0 is not 1 to 65535",
		`tls.NewClient("a", 65536)`: "fake: port 65536 is not 1 to 65535",
		`tls.NewClient("a", -1)`:    "fake: port -1 is not 1 to 65535",
		`tls.Read(1, 0)`:            "fake: maxBytes is not 1 to 16777216",
		`tls.Read(1, 16777217)`:     "fake: maxBytes is not 1 to 16777216",
		`tls.Read(1, 2147483648)`:   "fake: maxBytes is not 1 to 16777216",
		`tls.Read(98, 10)`:          "tls.Read: the plugin says it read 11 bytes, asked for 10",
	} {
		for _, exe := range []string{plain, sanitized} {
			got, _ := withFake(t, exe,
				"printf(\"before\\n\");\n"+call+";\nprintf(\"after\\n\");")
			if want := (result{"before\n", "script.dom:2: " + reason + "\n",
				1}); got != want {
				t.Errorf("%s:\ngot  %v\nwant %v", call, got, want)
			}
		}
	}
}

func TestWrongArgumentsAreRefusedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	for call, reason := range map[string]string{
		`tls.NewClient("a")`: "tls.NewClient: takes 2 arguments (host, " +
			"port), got 1",
		`tls.NewClient()`: "tls.NewClient: takes 2 arguments (host, " +
			"port), got 0",
		`tls.NewClient("a", 1, 2)`: "tls.NewClient: takes 2 arguments (host, " +
			"port), got 3",
		`tls.NewClient(1, 2)`: "tls.NewClient: argument 1 (host) must be " +
			"a string, got an i32",
		`tls.NewClient("a", "b")`: "tls.NewClient: argument 2 (port) must be " +
			"an int, got a string",
		`tls.NewClient("a", 1.0)`: "tls.NewClient: argument 2 (port) must be " +
			"an int, got a double",
		`tls.NewClient("a", 4294967739)`: "tls.NewClient: argument 2 (port) must be " +
			"an i32, got 4294967739",
		`tls.NewClient("a\0b", 1)`: "tls.NewClient: argument 1 (host) has a " +
			"zero byte in it",
		`tls.Handshake()`: "tls.Handshake: takes 1 argument (handle), got 0",
		`tls.Handshake("1")`: "tls.Handshake: argument 1 (handle) must " +
			"be an int, got a string",
		`tls.Write(1, "text")`: "tls.Write: argument 2 (data) must be a " +
			"blob, got a string",
		`tls.Write(1)`: "tls.Write: takes 2 arguments (handle, " +
			"data), got 1",
		`tls.Read(1)`: "tls.Read: takes 2 arguments (handle, " +
			"maxBytes), got 1",
		`tls.Read(1, -5)`: "tls.Read: maxBytes must be 1 to 16777216, got -5",
		`tls.Read(1, "5")`: "tls.Read: argument 2 (maxBytes) must be " +
			"an int, got a string",
		`tls.Close(blob.FromText("1"))`: "tls.Close: argument 1 (handle) must be an " +
			"int, got a blob",
		`tls.SetInsecureSkipVerify(1)`: "tls.SetInsecureSkipVerify: takes 2 " +
			"arguments (handle, on), got 1",
		`tls.SetTimeout(1, 2147483648)`: "tls.SetTimeout: argument 2 (milliseconds) " +
			"must be an i32, got 2147483648",
		`tls.NewServerContext("a", 1)`: "tls.NewServerContext: argument 2 " +
			"(keyFile) must be a string, got an i32",
		`tls.Accept(1, 2, 3)`: "tls.Accept: argument 2 (host) must be a " +
			"string, got an i32",
		`tls.Accept(1, "a")`: "tls.Accept: takes 3 arguments (ctxHandle, " +
			"host, port), got 2",
		`tls.CloseServerContext(1, 2)`: "tls.CloseServerContext: takes 1 argument " +
			"(ctxHandle), got 2",
		`tls.SetCaBundle(blob.FromText(""))`: "tls.SetCaBundle: argument 1 (path) must " +
			"be a string, got a blob",
		`tls.PeerCertSubject("a")`: "tls.PeerCertSubject: argument 1 (handle) " +
			"must be an int, got a string",
		`tls.Backend(1)`: "tls.Backend: takes no arguments, got 1",
		`tls.Version("a")`: "tls.Version: argument 1 (handle) must be " +
			"an int, got a string",
		`tls.Version(1, 2)`: "tls.Version: takes 0 or 1 arguments " +
			"(handle), got 2",
		`tls.LastError(1)`: "tls.LastError: takes no arguments, got 1",
		`tls.SetOption(1, "alpn")`: "tls.SetOption: takes 3 arguments (handle, " +
			"name, value), got 2",
		`tls.SetOption(1, "alpn", 2)`: "tls.SetOption: argument 3 (value) must be " +
			"a string, got an i32",
		`tls.SetCertificate(1, "a", "b", 4)`: "tls.SetCertificate: argument 4 (keyFile) " +
			"must be a string, got an i32",
		`tls.Info(1)`: "tls.Info: takes 2 arguments (handle, " +
			"name), got 1",
		`tls.Listen(1, "a", "b")`: "tls.Listen: argument 3 (port) must be an " +
			"int, got a string",
		`tls.ReadPlain(1, -5)`: "tls.ReadPlain: maxBytes must be 1 to " +
			"16777216, got -5",
		`tls.WritePlain(1, "text")`: "tls.WritePlain: argument 2 (data) must be " +
			"a blob, got a string",
		`tls.RaiseErrors(2)`: "tls.RaiseErrors: on 2: must be 0 or 1",
		`tls.RaiseErrors()`:  "tls.RaiseErrors: takes 1 argument (on), got 0",
		`tls.ErrorKind(1)`:   "tls.ErrorKind: takes no arguments, got 1",
		`tls.Renegotiate(1)`: "the tls plugin has no function " +
			"tls.Renegotiate",
	} {
		for _, exe := range []string{plain, sanitized} {
			got, calls := withFake(t, exe, "plugin \"TlsPlugin\";\n"+call+";")
			if want := (result{"", "script.dom:2: " + reason + "\n", 1}); got != want {
				t.Errorf("%s:\ngot  %v\nwant %v", call, got, want)
			}
			if calls != nil {
				t.Errorf("%s: domhost must refuse the call, but the plugin got %q",
					call, calls)
			}
		}
	}
}

func TestPluginIsFoundFromTheScriptsFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	library, err := os.ReadFile(fakePlugin)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exe, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	write("plugins/tls/TlsPlugin.so", library)
	write("path/TlsPlugin.so", library)
	write("bad/TlsPlugin.so", []byte("this is not a library"))
	write("bin/TlsPlugin.so", library)
	write("bin/domhost", exe)
	write("alone/domhost", exe)
	empty := filepath.Join(dir, "other", "TlsPlugin.so")
	if err := os.Mkdir(filepath.Dir(empty), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := buildPlugin(empty, "notaplugin.c"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, exe, path, env, stderr string
	}{
		{name: "beside the script", exe: "alone", path: "../plugins/tls/TlsPlugin"},
		{name: "absolute", exe: "alone", path: dir + "/plugins/tls/TlsPlugin"},
		{name: "in DOMHOST_PLUGIN_PATH", exe: "alone", path: "../nowhere/TlsPlugin",
			env: dir + "/path"},
		{name: "beside domhost", exe: "bin", path: "../nowhere/TlsPlugin"},
		{name: "beside domhost, after DOMHOST_PLUGIN_PATH", exe: "bin",
			path: "../nowhere/TlsPlugin", env: dir + "/none"},
		{name: "the script's folder goes first", exe: "bin", path: "../bad/TlsPlugin",
			env: dir + "/path",
			stderr: "scripts/s.dom:2: plugin: scripts/../bad/TlsPlugin.so: file too " +
				"short\n"},
		{name: "nowhere", exe: "alone", path: "../nowhere/TlsPlugin", env: dir + "/none",
			stderr: "scripts/s.dom:2: plugin ../nowhere/TlsPlugin: no such file; " +
				"tried scripts/../nowhere/TlsPlugin.so, " +
				dir + "/none/TlsPlugin.so, " + dir + "/alone/TlsPlugin.so\n"},
		{name: "another library", exe: "alone", path: "../other/TlsPlugin",
			stderr: "scripts/s.dom:2: scripts/../other/TlsPlugin.so is not a tls " +
				"plugin: it has no tls_NewClient\n"},
		{name: "twice", exe: "bin", path: `TlsPlugin"; plugin "../plugins/tls/TlsPlugin`,
			stderr: "scripts/s.dom:2: plugin ../plugins/tls/TlsPlugin: there is a " +
				"tls plugin already\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			write("scripts/s.dom", []byte(
				"\nplugin \""+c.path+"\";\nprintf(\"%s\\n\", tls.Backend());"))
			var env []string
			if c.env != "" {
				env = append(env, "DOMHOST_PLUGIN_PATH="+c.env)
			}
			want := result{"openssl\n", "", 0}
			if c.stderr != "" {
				want = result{"", c.stderr, 1}
			}
			if got := run(t, dir, env, filepath.Join(dir, c.exe, "domhost"),
				"scripts/s.dom"); got != want {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// If a script has no plugin directive at all, its tls calls work. If it has other directives, it
// needs one for the tls plugin, too.
func TestPluginDirectiveIsNeededOnceThereAreAny(t *testing.T) {
	t.Parallel()
	env := []string{"DOMHOST_PLUGIN_PATH=" + filepath.Dir(fakePlugin)}
	check(t, []script{
		{name: "no directive at all", text: `printf("%s\n", tls.Backend());`,
			stdout: "openssl\n"},
		{name: "another one", text: `plugin "PrintPlugin"; tls.Backend();`,
			stderr: "script.dom:1: tls.Backend: the script loads no tls plugin",
			status: 1},
	}, env)
	check(t, []script{{name: "print needs no file", text: `printf("a\n");`, stdout: "a\n"}},
		nil)
}

func TestEveryExampleOfTheReferenceRuns(t *testing.T) {
	t.Parallel()
	path, err := filepath.Abs("../../../../shared/reference/tls-plugin.txt")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := reference.Examples(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the reference is not beside this checkout: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The output of each script with the fake plugin, and the last call that it makes.
	stdout := map[string]string{
		"tls.Read": "0 bytes\n", "tls.PeerCertSubject": "/CN=fake\n",
		"tls.Backend": "openssl\n",
		"tls.Version": "Fake 1.0\n", "tls.LastError": "[]\n",
	}
	last := map[string]string{
		"tls.SetCaBundle": "SetCaBundle /etc/ssl/certs/ca-bundle.crt",
		"tls.Backend":     "Backend",
		"tls.Version":     "Version 0", "tls.LastError": "LastError",
		"tls.NewServerContext":   "CloseServerContext 1",
		"tls.Accept":             "CloseServerContext 1",
		"tls.CloseServerContext": "CloseServerContext 1",
	}
	for _, e := range examples {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			want, wantLast := result{stdout: stdout[e.Name]}, last[e.Name]
			if wantLast == "" {
				wantLast = "Close 1"
			}
			for _, directives := range []string{"",
				`plugin "../plugins/print/PrintPlugin"; plugin "../plugins/tls/TlsPlugin";` + "\n"} {
				got, calls := withFake(t, sanitized, directives+e.Source)
				if got != want || len(calls) == 0 ||
					calls[len(calls)-1] != wantLast {
					t.Errorf("%s\ngot %v, want %v\ncalls %q, want the last "+
						"to be %q", directives+e.Source, got, want,
						calls, wantLast)
				}
			}
			if e.Name == reference.TypicalFlow {
				_, calls := withFake(t, sanitized, e.Source)
				// the script's text has a line break after "Host:"
				request := fmt.Sprintf("%x",
					"GET / HTTP/1.0\r\nHost:\nexample.com\r\n\r\n")
				if len(calls) < 3 || calls[2] != "Write 1 37 "+request {
					t.Errorf("calls %q, want the third to write the request %s",
						calls, request)
				}
			}
		})
	}
}
