package tlsd

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcc"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// If a worker dies, its sessions are lost, and nothing else.

// faultyLibrary builds testdata/fault, a replacement of libssl with faults.
func faultyLibrary(t *testing.T, flags ...string) string {
	t.Helper()
	cc := testkit.Tool(t, "cc")
	dir := testkit.Dir(t)
	lib := filepath.Join(dir, "libfault.so")
	err := testcc.Compile(t.Context(), cc, lib, []string{"testdata/fault/fault.c"},
		append(flags, "-shared", "-fPIC", "-Wl,--no-as-needed", "-l:libssl.so.3",
			"-l:libcrypto.so.3")...)
	if err != nil && !strings.Contains(err.Error(), "cannot find -l") {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("needs libssl.so.3 to link with: %v", err)
	}
	return lib
}

// echoServer is a TLS server that sends its input back.
func echoServer(t *testing.T) (port string) {
	t.Helper()
	cert := testcert.NewCA(t, "Test CA").Localhost(t)
	return strconv.Itoa(testkit.Echo(t, cert.TLS()))
}

// modes are the two kinds of isolation.
var modes = map[string][]string{
	"session": {"--isolation", "session"},
	"shared":  {"--isolation", "shared", "--workers", "2"},
}

// A talker is a session with a connection.
type talker struct {
	net.Conn
	t      *testing.T
	hear   func() (string, error) // reads the next line
	worker int                    // the process ID
}

// newTalker begins a session, and connects it to the echo server at the port. The connection has
// the handle 1.
func newTalker(t *testing.T, sock, port string) *talker {
	t.Helper()
	conn, in, worker := connect(t, sock)
	s := &talker{conn, t, func() (string, error) { return in.ReadString('\n') }, worker}
	s.ask("tls.NewClient", `"localhost",`+port)
	s.ask("tls.SetInsecureSkipVerify", "1,1")
	s.ask("tls.Handshake", "1")
	return s
}

// newTalkers begins sessions until there are at least four, with at least two workers. If workers
// are shared, some sessions have the same worker.
func newTalkers(t *testing.T, sock, port string) (talkers []*talker) {
	t.Helper()
	// It may take a while until the second shared worker has started.
	testkit.Until(t, "two sessions have different workers", func() bool {
		talkers = append(talkers, newTalker(t, sock, port))
		other := slices.ContainsFunc(talkers, func(s *talker) bool {
			return s.worker != talkers[0].worker
		})
		return len(talkers) >= 4 && other
	})
	return talkers
}

func (s *talker) say(method, params string) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s, `{"jsonrpc":"2.0","id":1,"method":%q,"params":[%s]}`+"\n",
		method, params); err != nil {
		s.t.Fatal(err)
	}
}

// order causes the fault with the number n in the faulty library. It calls tls.Read for n bytes,
// and SSL_read of the library takes the number of bytes as the number of the fault.
func (s *talker) order(n int) {
	s.t.Helper()
	s.say("tls.Read", fmt.Sprintf("1,%d", n))
}

// ask makes a call that must succeed.
func (s *talker) ask(method, params string) string {
	s.t.Helper()
	s.say(method, params)
	line, err := s.hear()
	if err != nil || !strings.Contains(line, `"result"`) {
		s.t.Fatalf("%s must succeed; the answer is %q, the error %v", method, line, err)
	}
	return line
}

// talk sends five bytes to the echo server, and reads them when they come back.
func (s *talker) talk() {
	s.t.Helper()
	s.ask("tls.Write", `1,"aGVsbG8="`)
	if got := s.ask("tls.Read", "1,100"); !strings.Contains(got, `"result":"aGVsbG8="`) {
		s.t.Fatalf("the connection does not work any more: %s", got)
	}
}

// lost waits for the message that the session is lost, and for the end of the connection. The
// message must have one of the reasons in why.
func (s *talker) lost(why ...string) {
	s.t.Helper()
	var want []string
	for _, w := range why {
		want = append(want,
			`{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"lost: the worker of this session `+w+`","data":{"kind":"lost"}}}`+"\n")
	}
	if got, err := s.hear(); !slices.Contains(want, got) {
		s.t.Errorf("the caller is told %q, %v; want %q", got, err, want)
	}
	if got, err := s.hear(); err != io.EOF {
		s.t.Errorf("the connection of a lost session has not ended: %q, %v", got, err)
	}
}

// buried waits for the log entry about the worker's end, and returns it.
func buried(t *testing.T, log string, worker int) map[string]any {
	t.Helper()
	var found map[string]any
	untilLogged(t, log, fmt.Sprintf("the end of worker %d", worker), func(text string) bool {
		for line := range strings.Lines(text) {
			var e map[string]any
			if json.Unmarshal([]byte(line), &e) == nil &&
				e["msg"] == "worker ended unexpectedly" &&
				e["worker"] == float64(worker) {
				found = e
			}
		}
		return found != nil
	})
	return found
}

func TestADeathCostsTheWorkersSessionsAndNothingElse(t *testing.T) {
	t.Parallel()
	lib := faultyLibrary(t)
	port := echoServer(t)
	const watchdog = "20s" // long, because healthy workers answer late on a busy machine
	for name, tt := range map[string]struct {
		read  int         // the fault's number, or 100 for a Read without a fault
		kill  unix.Signal // if not 0, the test sends this signal to the worker
		exit  string      // in the log, how the process ended
		cause string      // in the log, and for the caller
	}{
		"SIGSEGV":        {1001, 0, "exit status 2", "died of SIGSEGV"},
		"abort":          {1002, 0, "exit status 2", "died of SIGABRT"},
		"SIGBUS":         {1003, 0, "exit status 2", "died of SIGBUS"},
		"exit":           {1004, 0, "exit status 3", "exited with status 3"},
		"stack overflow": {1005, 0, "exit status 2", "died of SIGSEGV"},
		"hang": {1006, 0, "exit status 2", "was killed because it did not come back from " +
			"the library for " + watchdog},
		"stopped": {1007, 0, "SIGKILL", "was killed because it did not answer for " +
			watchdog},
		"SIGKILL":              {100, unix.SIGKILL, "SIGKILL", "was killed (SIGKILL)"},
		"SIGSEGV from outside": {100, unix.SIGSEGV, "exit status 2", "died of SIGSEGV"},
	} {
		for mode, flags := range modes {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				dir := testkit.Dir(t)
				sock, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
				if tt.read == 1006 || tt.read == 1007 {
					flags = append(flags[:len(flags):len(flags)],
						"--watchdog", watchdog)
				}
				startWith(t, nil, "exec 2>"+log+";",
					append([]string{"--socket", sock, "--log-format", "json",
						"--libssl", lib}, flags...)...)
				talkers := newTalkers(t, sock, port)
				talkers[0].order(tt.read)
				if tt.kill != 0 {
					// When tls.Backend is answered, the Read has begun.
					talkers[0].say("tls.Backend", "")
					if got, err := talkers[0].hear(); err != nil ||
						!strings.Contains(got, `"result":"openssl"`) {
						t.Fatalf("tls.Backend: got %s, %v; want "+
							"openssl", got, err)
					}
					unix.Kill(talkers[0].worker, tt.kill)
				}
				others, lost := 0, 0
				for _, s := range talkers {
					if s.worker == talkers[0].worker {
						// If the worker dies while it executes
						// libssl, the error of each of its sessions
						// names tls.Read. When the test's signal
						// arrives, the Read may be waiting, and not
						// be in libssl. Then only the error of the
						// Read's own session names tls.Read.
						why := []string{tt.cause + " in tls.Read"}
						if s != talkers[0] && tt.kill != 0 {
							why = append(why, tt.cause)
						}
						s.lost(why...)
						lost++
					} else {
						s.talk()
						others++
					}
				}
				if others == 0 || mode == "session" && lost != 1 ||
					mode == "shared" && lost < 2 {
					t.Errorf("%d sessions are lost, and %d go on; want only "+
						"the sessions of the dead worker to be "+
						"lost", lost, others)
				}
				newTalker(t, sock, port).talk()
				e := buried(t, log, talkers[0].worker)
				library, _ := e["library"].(string)
				text, _ := e["uptime"].(string)
				uptime, _ := time.ParseDuration(text)
				if e["exit"] != tt.exit || e["cause"] != tt.cause ||
					e["operation"] != "tls.Read" ||
					e["sessions"] != float64(lost) ||
					!strings.HasPrefix(library, "OpenSSL ") || uptime <= 0 {
					delete(e, "stderr")
					t.Errorf("the log has wrong facts about the dead worker: "+
						"%v", e)
				}
			})
		}
	}
}
