package domhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testcc"
	"tlsd/internal/testkit"
)

// The programs of the tests, built once. sanitized is domhost with the address and
// undefined-behaviour sanitizers, which also find leaks. plain is domhost as make builds it.
// fakePlugin is a library that domhost loads in place of TlsPlugin.so.
var plain, sanitized, fakePlugin string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "domhost-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	plain, sanitized = filepath.Join(dir, "plain", "domhost"),
		filepath.Join(dir, "sanitized", "domhost")
	fakePlugin = filepath.Join(dir, "fake", "TlsPlugin.so")
	for _, file := range []string{plain, sanitized, fakePlugin} {
		if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
			return 0, err
		}
	}
	if err := Build(plain, "-O2"); err != nil {
		return 0, err
	}
	if err := Build(sanitized, "-O1", "-fsanitize=address,undefined",
		"-fno-sanitize-recover=all"); err != nil {
		return 0, err
	}
	if err := buildPlugin(fakePlugin, "fakeplugin.c"); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func buildPlugin(file, source string) error {
	return testcc.Compile(context.Background(), "cc", file,
		[]string{filepath.Join("testdata", source)}, "-fPIC", "-shared")
}

// A result is what a run of domhost has printed, with its exit status.
type result struct {
	stdout, stderr string
	status         int
}

func (r result) String() string {
	return fmt.Sprintf("status %d, stdout %q, stderr %q", r.status, r.stdout, r.stderr)
}

// run runs exe with these arguments in the folder dir. Its environment has PATH and LC_ALL, and the
// variables of env.
func run(t *testing.T, dir string, env []string, exe string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", exe, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// runScript runs the text as script.dom, in a folder of its own.
func runScript(t *testing.T, exe, text string, env []string, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "script.dom"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return run(t, dir, env, exe, append(args, "script.dom")...)
}

// A script is one case of a test: the text, and what its run must print.
type script struct {
	name   string
	text   string
	stdout string
	stderr string // without the line feed
	status int
}

// check runs each script with both builds of domhost.
func check(t *testing.T, scripts []script, env []string, args ...string) {
	t.Helper()
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			want := result{stdout: s.stdout, status: s.status}
			if s.stderr != "" {
				want.stderr = s.stderr + "\n"
			}
			for _, exe := range []string{plain, sanitized} {
				if got := runScript(t, exe, s.text, env, args...); got != want {
					t.Errorf("%s:\n%s\ngot  %v\nwant %v", exe,
						s.text[:min(len(s.text), 500)], got, want)
				}
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{
		"ok.dom": `printf("ok\n");`,
		"def.dom": "#define PORT 1\n#define HOST \"a\"\nprintf(\"%s %d\\n\", HOST, " +
			"PORT);",
		"empty.dom": "",
		"binary":    "printf(\"a\");\x00",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   string // separated by blanks
		stdout string
		stderr string
		status int
	}{
		{"ok.dom", "ok\n", "", 0},
		{"-- ok.dom", "ok\n", "", 0},
		{"empty.dom", "", "", 0},
		{"def.dom", "a 1\n", "", 0},
		{`-D PORT=2 def.dom`, "a 2\n", "", 0},
		{`-DPORT=2 -DHOST="b" def.dom`, "b 2\n", "", 0},
		{`-D PORT=2 -D PORT=3 def.dom`, "a 3\n", "", 0},
		{`-D PORT def.dom`, "a 1\n", "", 0},
		{`def.dom -D PORT=4`, "a 4\n", "", 0},
		{"", "", "domhost: which script? See domhost --help\n", 2},
		{"ok.dom def.dom", "", "domhost: one script at a time, got ok.dom and def.dom\n",
			2},
		{"--nope ok.dom", "", "domhost: unknown option --nope; see domhost --help\n", 2},
		{"ok.dom -D", "", "domhost: -D needs NAME=VALUE\n", 2},
		{"-D 1=2 ok.dom", "", "domhost: -D 1=2: needs NAME=VALUE, with a name of " +
			"letters, digits and _\n", 2},
		{"none.dom", "", "domhost: cannot open none.dom: No such file or directory\n", 2},
		{".", "", "domhost: cannot read .: Is a directory\n", 2},
		{"binary", "", "binary:1: the script has a zero byte; it is not a text\n", 2},
		{"-- -x", "", "domhost: cannot open -x: No such file or directory\n", 2},
	} {
		for _, exe := range []string{plain, sanitized} {
			got := run(t, dir, nil, exe, strings.Fields(c.args)...)
			if want := (result{c.stdout, c.stderr, c.status}); got != want {
				t.Errorf("domhost %s:\ngot  %v\nwant %v", c.args, got, want)
			}
		}
	}
	help := run(t, dir, nil, plain, "--help")
	if help.status != 0 || !strings.Contains(help.stdout, "usage: domhost") ||
		help.stderr != "" {
		t.Errorf("domhost --help: got %v; want status 0, the usage on standard output, "+
			"and nothing on standard error", help)
	}
}

func TestOutputToAPipeAppearsLineByLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The script never ends. So its two lines can be read only if domhost keeps no line in a
	// buffer.
	text := `printf("one\n"); printf("two\n"); while (1) { }`
	if err := os.WriteFile(filepath.Join(dir, "s.dom"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, plain, "s.dom")
	cmd.Dir = dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	got := make([]byte, 0, 8)
	for buf := make([]byte, 8); len(got) < 8; {
		n, err := out.Read(buf[:8-len(got)])
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("reading fails after the output %q: %v", got, err)
		}
	}
	if string(got) != "one\ntwo\n" {
		t.Errorf("the output is %q; want both lines", got)
	}
}

func TestFullDiskIsAnErrorOfPrintf(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("this system has no /dev/full: %v", err)
	}
	defer full.Close()
	dir := t.TempDir()
	for text, want := range map[string]string{
		"\nprintf(\"line\\n\");": "s.dom:2: printf: standard output: No space left on " +
			"device\n",
		"\nprintf(\"no newline\");": "domhost: standard output: No space left on device\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "s.dom"), []byte(text),
			0o644); err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd := exec.Command(sanitized, "s.dom")
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, full, &stderr
		_ = cmd.Run()
		if stderr.String() != want || cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("the script %q ends with status %d, and prints %q; want status 1 "+
				"and %q", text, cmd.ProcessState.ExitCode(), stderr.String(), want)
		}
	}
}

// valgrind finds no leak in domhost, and no read of uninitialised memory. The other tests use the
// sanitizers, which do not find such reads.
func TestNothingIsLostOrUninitialised(t *testing.T) {
	t.Parallel()
	valgrind := testkit.Tool(t, "valgrind")
	for name, text := range map[string]string{
		"runs": `plugin "TlsPlugin";
			string f(string $s, i32 $n) { if ($n == 0) return $s; return f($s + "x", $n - 1); }
			void main() {
				blob $b[10]; $b[4] = 1; $b = tls.Read(tls.NewClient("a", 1), 10);
				string $s[4] = f("a", 9); $s := $s + $s; $s += $s;
				printf("%s %s %.1f\n", $s, tls.PeerCertSubject(99).Length == 9000, 0.5);
			}`,
		"fails": `plugin "TlsPlugin";
			void main() { string $s = "a"; printf("%s\n", $s + $s); tls.NewClient("wordy", 1 + 0); }`,
		"does not parse": `string $s = "a" + "b"; if (`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "s.dom"), []byte(text),
				0o644); err != nil {
				t.Fatal(err)
			}
			got := run(t, dir, []string{"DOMHOST_PLUGIN_PATH=" +
				filepath.Dir(fakePlugin)}, valgrind, "-q",
				"--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=all",
				"--errors-for-leak-kinds=all", plain, "s.dom")
			if got.status == 99 || got.status < 0 {
				t.Errorf("under valgrind, domhost ends with status %d (99: "+
					"valgrind has found a mistake):\n%s", got.status,
					got.stderr)
			}
		})
	}
}
