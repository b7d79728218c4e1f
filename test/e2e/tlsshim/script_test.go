// Package tlsshim runs the real tlsshim against the real daemon. Each file of testdata is a script
// of package testscript with its own directory. TLSD_SOCKET names the script's own socket, also if
// there is no daemon. Commands besides the package's own:
//
//	run STATUS [arg …]      run tlsshim like exec; it must end with this status
//	daemon [flag …]         start tlsd; NAME=value sets a variable of its environment
//	echo                    start a crypto/tls server that sends its input back; ECHO_PORT
//	                        has its port, and ca.pem makes it trusted as "localhost"
//	json N PATH WANT        line N of the last output must be JSON and have this value at the
//	                        path, such as error.data.kind; if WANT is *, any value will do
//	findings CHECK STATUS REGEXP
//	                        the last output must be of doctor --json, and have such a finding
//
// Every wait has a limit. Everything that a script starts is gone when the script ends.
package tlsshim

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/test/e2e/script"
)

func TestMain(m *testing.M) { testd.Main(m) }

func TestScripts(t *testing.T) {
	t.Parallel()
	shim := testd.Exe(t, "tlsshim")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			env.Values[tbKey{}] = tb
			env.Setenv("PATH", filepath.Dir(shim)+":"+os.Getenv("PATH"))
			env.Setenv("TLSD_SOCKET", filepath.Join(testkit.Dir(tb), "s"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run": script.Run("tlsshim"), "daemon": daemon, "echo": echo,
			"json":     jsonValue,
			"findings": findings,
		},
	})
}

type tbKey struct{}

func tbOf(ts *testscript.TestScript) testing.TB { return ts.Value(tbKey{}).(testing.TB) }

func daemon(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 0, 100)
	var o testd.Options
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			o.Flags = append(o.Flags, arg)
		} else {
			o.Env = append(o.Env, arg)
		}
	}
	ts.Setenv("TLSD_SOCKET", testd.StartWith(tbOf(ts), o).Socket)
}

func echo(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 0, 0)
	s := startEcho(tbOf(ts))
	ts.Setenv("ECHO_PORT", strconv.Itoa(s.port))
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), s.ca.PEM(), 0o644))
}

// echoServer is a TLS server that sends its input back.
type echoServer struct {
	port   int
	ca     *testcert.CA
	shaken chan struct{} // gets an element for each handshake
	ended  chan error    // gets how each connection ended: nil after close_notify
}

func startEcho(tb testing.TB) *echoServer {
	tb.Helper()
	ca := testcert.NewCA(tb, "Test CA")
	leaf := ca.Issue(tb, testcert.Leaf{CN: "an echo", DNS: []string{"localhost"},
		IPs: []string{"127.0.0.1"}})
	s := &echoServer{ca: ca, shaken: make(chan struct{}, 100), ended: make(chan error, 100)}
	s.port = testkit.ServeTLS(tb, leaf.Config(), func(c *tls.Conn) {
		s.shaken <- struct{}{}
		_, err := io.Copy(c, c)
		s.ended <- err
	})
	return s
}

func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 3, 3)
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile("stdout"), "\n"), "\n")
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 || n > len(lines) {
		ts.Fatalf("the output has no line %s; it has %d lines", args[0], len(lines))
	}
	var v any
	if err := json.Unmarshal([]byte(lines[n-1]), &v); err != nil {
		ts.Fatalf("line %d is no JSON: %v: %s", n, err, lines[n-1])
	}
	for _, name := range strings.Split(args[1], ".") {
		m, _ := v.(map[string]any)
		if v = m[name]; v == nil {
			ts.Fatalf("line %d: there is no %s: %s", n, args[1], lines[n-1])
		}
	}
	if got := fmt.Sprint(v); args[2] != "*" && got != args[2] {
		ts.Fatalf("line %d: %s is %q, want %q", n, args[1], got, args[2])
	}
}

func findings(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 3, 3)
	type finding struct{ Check, Status, Text, Mend string }
	var r struct {
		Usable   *bool
		Findings []finding
	}
	// Unmarshal fails if the output is more than one JSON value
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &r))
	re := regexp.MustCompile(args[2])
	if r.Usable == nil || !slices.ContainsFunc(r.Findings, func(f finding) bool {
		return f.Check == args[0] && f.Status == args[1] &&
			re.MatchString(f.Text+" "+f.Mend)
	}) {
		ts.Fatalf("doctor --json has no finding %q with the status %s that matches %q",
			args[0], args[1], args[2])
	}
}
