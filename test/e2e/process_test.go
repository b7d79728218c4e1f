package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A program says what to run.
type program struct {
	name  string // domhost, tlsd, tlsshim, or a program of PATH
	args  []string
	dir   string // working directory; the package's, if empty
	env   []string
	stdin string
}

// A process is a running program. It ends with its test at the latest.
type process struct {
	name           string
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{} // closed when the process has ended
}

// An ended is the result of a process.
type ended struct {
	stdout, stderr string
	status         int // -1: ended by a signal
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// domhost returns the program that runs a script.
func domhost(script string, args ...string) program {
	return program{name: "domhost", args: append(args, script)}
}

// start starts a program. The program's environment is the result of the function neutral, with
// p.env added.
func start(t *testing.T, p program) *process {
	t.Helper()
	file := p.name
	switch p.name {
	case "domhost":
		testd.Plugin(t) // puts the plugin beside domhost, which looks there
		file = testd.Domhost(t)
	case "tlsd", "tlsshim":
		file = testd.Exe(t, p.name)
	}
	r := &process{name: p.name, cmd: exec.Command(file, p.args...), done: make(chan struct{})}
	r.cmd.Dir = p.dir
	r.cmd.Env = append(neutral(), p.env...)
	if p.stdin != "" {
		r.cmd.Stdin = strings.NewReader(p.stdin)
	}
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.cmd.WaitDelay = time.Second // a child of the process may keep the pipes open
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait() // ProcessState has the result
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // does nothing if the process has ended
		<-r.done
		if t.Failed() {
			t.Logf("%s %q: %v, stdout:\n%s\nstderr:\n%s", r.name, p.args,
				r.cmd.ProcessState, r.stdout.String(), r.stderr.String())
		}
	})
	return r
}

// run runs a program to its end.
func run(t *testing.T, p program) ended {
	t.Helper()
	return start(t, p).wait(t)
}

// succeed runs a program to its end and returns its output. The program must succeed.
func succeed(t *testing.T, p program) string {
	t.Helper()
	e := run(t, p)
	if e.status != 0 {
		t.Fatalf("%s must succeed: status %d, stderr %s", p.name, e.status, e.stderr)
	}
	return e.stdout
}

// wait waits for the end of the process.
func (r *process) wait(t *testing.T) ended { return r.waitFor(t, testkit.Patience) }

func (r *process) waitFor(t *testing.T, limit time.Duration) ended {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(limit):
		_ = r.cmd.Process.Signal(syscall.SIGQUIT) // a Go program prints its goroutines
		t.Fatalf("%s has not ended within %v", r.name, limit)
	}
	return ended{r.stdout.String(), r.stderr.String(), r.cmd.ProcessState.ExitCode()}
}

// expect waits until the process has printed the text on standard output.
func (r *process) expect(t *testing.T, text string) {
	t.Helper()
	testkit.Until(t, r.name+" prints "+text, func() bool {
		select {
		case <-r.done:
			if !strings.Contains(r.stdout.String(), text) {
				t.Fatalf("%s has ended and not printed %q", r.name, text)
			}
		default:
		}
		return strings.Contains(r.stdout.String(), text)
	})
}

// neutral is the test's environment without the variables that choose a daemon, a configuration, or
// the trusted CAs.
func neutral() []string {
	var kept []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "TLSD_") && !strings.HasPrefix(name, "SSL_CERT_") &&
			!strings.HasPrefix(name, "DOMHOST_") &&
			name != "XDG_RUNTIME_DIR" && name != "OPENSSL_CONF" {
			kept = append(kept, v)
		}
	}
	return kept
}

// mustContain checks that the output of a program has all these texts.
func mustContain(t *testing.T, who, printed string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(printed, w) {
			t.Errorf("%s must print %q; it has printed\n%s", who, w, printed)
		}
	}
}
