package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlsd/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is the result of a run of the program.
type outcome struct {
	status         int
	stdout, stderr string
}

// start runs tlsshim in this process, and returns what it did.
func start(ctx context.Context, stdin string, env map[string]string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	status := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr,
		func(k string) string { return env[k] })
	return outcome{status, stdout.String(), stderr.String()}
}

func TestWrongUsageIsExplained(t *testing.T) {
	t.Parallel()
	nobody := map[string]string{"TLSD_SOCKET": filepath.Join(t.TempDir(), "s")}
	for _, tt := range []struct{ args, why string }{
		{"", "a subcommand is missing"},
		{"nonsense", `unknown subcommand "nonsense"`},
		{"--nonsense call", "unknown flag --nonsense"},
		{"call --nonsense", "unknown flag --nonsense"},
		{"call", "a method is missing"},
		{"call nonsense", "no method"},
		{"--socket", "a value is missing after --socket"},
		{"--socket= status", "--socket: want a path"},
		{"--timeout soon status", "--timeout"},
		{"--timeout 0s status", "want a time above 0"},
		{"--timeout -5s status", "want a time above 0"},
		{"status now", `unexpected argument "now"`},
		{"doctor now", `unexpected argument "now"`},
		{"shell now", `unexpected argument "now"`},
		{"sessions now", `unexpected argument "now"`},
		{"call --watch Backend", "unknown flag --watch"},
		{"health --watch", "unknown flag --watch"},
		{"session", "want session N"},
		{"session 0", `"0" is not the number of a session`},
		{"end 1", "want --reason TEXT"},
		{"end --reason x", "want end N"},
		{"end 1 --reason x 2", "want end N"},
		{"log-level debug info", "one argument too many"},
		{"exporter", "want --listen ADDRESS"},
		{"exporter --listen 9911", "want HOST:PORT"},
		{"health --admin-socket=", "--admin-socket: want a path"},
		{"health --socket x", "--socket has no effect here; use --admin-socket"},
		{"--socket x end 1 --reason y", "--socket has no effect here; use --admin-socket"},
		{"--admin-socket x status", "--admin-socket has no effect here; use --socket"},
	} {
		got := start(t.Context(), "", nobody, strings.Fields(tt.args)...)
		if got.status != exitUsage || !strings.Contains(got.stderr, tt.why) ||
			got.stdout != "" {
			t.Errorf("%q: %+v, want status 2 and %q", tt.args, got, tt.why)
		}
	}
}

// --help prints the manual, which is the package comment of main.go, as plain text. With a
// subcommand, --help prints the help of this subcommand.
func TestHelpIsTheManual(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"--help", "# Exit status"},
		{"-h", "tlsshim doctor"},
		{"call --help", "NewServerContext certFile keyFile"},
		{"--help call", "NewServerContext certFile keyFile"},
		{"shell -h", "Double quotes"},
		{"status --help", "which tlsd answers"},
		{"doctor --help", "how to mend it"},
		{"--version", "tlsshim "},
		{"call --version", "tlsshim "},
	} {
		want := tt.want
		if heading, ok := strings.CutPrefix(want, "# "); ok {
			want = "\n" + strings.ToUpper(heading) + "\n"
		}
		got := start(t.Context(), "", nil, strings.Fields(tt.args)...)
		if got.status != exitOK || !strings.Contains(got.stdout, want) || got.stderr != "" {
			t.Errorf("%q: %+v, want %q", tt.args, got, want)
		}
		if strings.Contains(got.stdout, "//") ||
			strings.Contains(got.stdout, "package main") {
			t.Errorf("%q: the manual is not plain text:\n%s", tt.args, got.stdout)
		}
	}
}

// standIn starts a stand-in for tlsd, and returns the path of its socket. The stand-in accepts one
// connection, greets like tlsd, answers calls with 7, and closes the connection. The parameter
// answers is the number of calls that it answers. If answers is negative, the stand-in sends
// nothing, not even the greeting.
func standIn(t *testing.T, answers int) (path string) {
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(testkit.Patience))
		in := bufio.NewScanner(conn)
		for id := 1; id <= answers+1 && in.Scan(); id++ {
			result := "7"
			if id == 1 {
				result = `{"version":1,"capabilities":["data"],"server":{"name":"stand-in","version":"0","pid":1}}`
			}
			fmt.Fprintf(conn, `{"jsonrpc":"2.0","id":%d,"result":%s}`+"\n", id, result)
		}
		if answers < 0 {
			io.Copy(io.Discard, conn) // no answer until the caller has gone
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return path
}

// If the session of a shell is lost, the shell says so once and ends, although its input has more
// lines.
func TestAShellEndsWhenItsSessionIsLost(t *testing.T) {
	t.Parallel()
	got := start(t.Context(), "NewClient h 1\nBackend\nLastError\n", nil, "shell", "--socket",
		standIn(t, 1))
	if got.status != exitFailed || got.stdout != "7\n" ||
		strings.Count(got.stderr, "session is lost") != 1 {
		t.Errorf("%+v; want one result, and one error", got)
	}
}

// A wrong line does not end the shell. The error has the number of the line; empty lines and
// comments count.
func TestAShellCountsItsLines(t *testing.T) {
	t.Parallel()
	const lines = "\n# a comment\n  \nNewClient h 1\nnonsense\n" +
		"NewClient h 2 -- NewClient h 3\n'\n"
	got := start(t.Context(), lines, nil, "shell", "--socket", standIn(t, 3))
	if got.status != exitUsage || got.stdout != "7\n7\n7\n" ||
		strings.Count(got.stderr, ": line ") != 2 ||
		!strings.Contains(got.stderr, "line 5: no method") ||
		!strings.Contains(got.stderr, "line 7: a single quote") {
		t.Errorf("%+v; want three results, and errors in the lines 5 and 7", got)
	}
}

// If a result cannot be written, for example because the disk is full, tlsshim fails.
func TestResultsThatCannotBeWrittenAreAnError(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"call NewClient h 1", "call --json NewClient h 1",
		"--version"} {
		var stderr bytes.Buffer
		args := append([]string{"--socket", standIn(t, 1)}, strings.Fields(args)...)
		status := run(t.Context(), args, strings.NewReader(""), full, &stderr,
			func(string) string { return "" })
		if status != exitFailed ||
			!strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%q: status %d, %q; want status %d, and why", args, status,
				&stderr, exitFailed)
		}
	}
}

// If a daemon accepts the connection, but never answers, each subcommand ends after --timeout.
func TestAHangingDaemonIsGivenUpAfterTheTimeout(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"call Backend", "status", "doctor", "shell"} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			path := standIn(t, -1)
			want := exitNoDaemon
			if args == "doctor" {
				want = exitFailed
			}
			words := append([]string{"--timeout", "50ms", "--socket", path},
				strings.Fields(args)...)
			got := start(t.Context(), "", nil, words...)
			if all := got.stdout + got.stderr; got.status != want ||
				!strings.Contains(all, "does not answer in time") {
				t.Errorf("%+v; want status %d, and \"does not answer in time\"",
					got, want)
			}
		})
	}
}

// A blockedReader is standard input on which nobody types. The first Read calls entered, and ends
// after the channel release is closed.
type blockedReader struct {
	entered func()
	release chan struct{}
}

func (r blockedReader) Read([]byte) (int, error) {
	r.entered()
	<-r.release
	return 0, errors.New("released")
}

func TestAnInterruptEndsTheWaitForInput(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"shell", "call Write 1 -"} {
		ctx, cancel := context.WithCancel(t.Context())
		stdin := blockedReader{cancel, make(chan struct{})}
		var stdout, stderr bytes.Buffer
		words := append([]string{"--socket", standIn(t, 0)}, strings.Fields(args)...)
		status := run(ctx, words, stdin, &stdout, &stderr,
			func(string) string { return "" })
		close(stdin.release)
		if status != exitInterrupted {
			t.Errorf("%q: status %d, %q; want status %d", args, status, &stderr,
				exitInterrupted)
		}
	}
}

func TestAnInterruptedCommandReportsOnlyTheInterrupt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range []string{"call Backend", "shell", "status", "doctor",
		"doctor --json"} {
		got := start(ctx, "Backend\n",
			map[string]string{"TLSD_SOCKET": filepath.Join(t.TempDir(), "s")},
			strings.Fields(args)...)
		if got.status != exitInterrupted || got.stdout != "" ||
			got.stderr != "tlsshim: interrupted\n" {
			t.Errorf("%q: %+v; want only the line \"interrupted\"", args, got)
		}
	}
}

// If no tlsd can be reached, the error has the path that was tried, the cause, and a remedy.
func TestTheErrorWithoutADaemonSaysWhatWasTriedAndWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, why, mend string }{
		{filepath.Join(dir, "none"), "there is no such file",
			"tlsd --socket " + dir + "/none"},
		{file, "it is not a socket", "use another path"},
		{dir, "it is a directory", dir + "/tlsd.sock"},
		{"/" + strings.Repeat("x", 120), "can have at most 107", "shorter path"},
	} {
		for _, args := range []string{"call Backend", "shell", "status",
			"call --json Backend"} {
			got := start(t.Context(), "Backend\n",
				map[string]string{"TLSD_SOCKET": tt.path}, strings.Fields(args)...)
			if got.status != exitNoDaemon || got.stdout != "" {
				t.Errorf("%s, %s: %+v; want status %d, and no result", tt.path,
					args, got, exitNoDaemon)
			}
			for _, want := range []string{tt.path, tt.why, tt.mend} {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("%s, %s: %q is not in %q",
						tt.path, args, want, got.stderr)
				}
			}
		}
	}
}

// A flag can stand before or after the subcommand.
func TestTheAdminSocketGoesBeforeOrAfter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a")
	for _, args := range [][]string{
		{"--admin-socket", path, "sessions"}, {"sessions", "--admin-socket", path},
	} {
		got := start(t.Context(), "", nil, args...)
		if got.status != exitNoDaemon || !strings.Contains(got.stderr, path) {
			t.Errorf("%q: %+v; want an error about the socket %s", args, got, path)
		}
	}
}

// If tlsd refuses to say whether it is healthy, the exit status of "tlsshim health" is not that of
// an unhealthy daemon. So a monitor can tell the two cases apart.
func TestARefusalIsNoStateOfHealth(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answered := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = fmt.Fprintln(conn, `{"jsonrpc":"2.0","id":null,`+
				`"error":{"code":-32010,"message":"too many clients"}}`)
			conn.Close()
		}
		answered <- err
	}()
	got := start(t.Context(), "", nil, "health", "--admin-socket", path)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if got.status != exitRefused || got.stderr != "tlsshim: too many clients\n" {
		t.Errorf("%+v; want status %d, and the refusal", got, exitRefused)
	}
}

// If tlsd cannot be reached, the exporter says why once, and not at each request for metrics.
func TestTheExporterSaysWhyOnce(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	c := &command{stderr: &stderr, adminSocket: filepath.Join(t.TempDir(), "a"),
		getenv: func(string) string { return "" }}
	handler := c.handler()
	for range 3 {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if !strings.Contains(w.Body.String(), "tlsd_up 0") {
			t.Errorf("the metrics are %s; want tlsd_up 0", w.Body)
		}
	}
	if got := stderr.String(); strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, "no such file") {
		t.Errorf("the exporter says %q; want one line with the cause", got)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	handler.ServeHTTP(httptest.NewRecorder(),
		httptest.NewRequest("GET", "/metrics", nil).WithContext(left))
	if got := stderr.String(); strings.Count(got, "\n") != 1 {
		t.Errorf("after a client has left, the exporter says %q; want no new line", got)
	}
}
