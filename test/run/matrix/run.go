package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// How a suite runs in a root: a folder with a small system that has one version of OpenSSL.

//go:embed enter.sh
var enter string

// A suite is one column of the matrix: test programs that run one after another.
type suite struct {
	name     string
	programs []program
}

// A program is a package's test program.
type program struct {
	pkg   string // folder, from the top of the source tree; the program runs there
	args  []string
	level string // for test/conformance: the level that it must run, such as "daemon"
}

// file is the name of the program.
func (p program) file() string { return strings.ReplaceAll(p.pkg, "/", "-") + ".test" }

var suites = []suite{
	{"openssl", []program{{pkg: "openssl"}}},
	{"certificates", []program{{pkg: "test/trust/certs"}}},
	// The next three suites run test/conformance, each at another level.
	{"in process", []program{{pkg: "test/conformance", level: "in process"}}},
	{"daemon", []program{{pkg: "internal/testd"}, {pkg: "test/conformance", level: "daemon"}}},
	{"plugin", []program{{pkg: "test/conformance", level: "plugin"}}},
	{"scripts", []program{
		// Left out: tests about this source tree and not about TLS (installation, README,
		// make demo).
		{pkg: "test/e2e", args: []string{
			"-test.skip=^(TestInstall|TestReadme|TestDemo|TestEveryExampleIsRun)"}},
	}},
	{"trust", []program{{pkg: "test/trust"}}},
	{"peers", []program{{pkg: "test/interop/peers"}}},
	{"sslscan", []program{
		{pkg: "test/interop/scan", args: []string{"-test.run=^TestSslscan$"}},
	}},
	{"testssl", []program{
		{pkg: "test/interop/scan", args: []string{"-test.run=^TestTestssl$"}},
	}},
}

// atOnce is how many suites run at the same time. The suites of one version run one after another,
// so those that run at the same time are of different versions. A suite waits for processes and
// timeouts about as long as it computes.
const atOnce = 2

func names() (all []string) {
	for _, s := range suites {
		all = append(all, s.name)
	}
	return all
}

// A matrix is one run of this command.
type matrix struct {
	ctx     context.Context
	mu      sync.Mutex // guards out
	out     io.Writer
	verbose bool
	only    string
	source  string // top of the source tree
	build   string // folder for what is built
	results table
	places  chan struct{} // one is taken by each suite that runs
}

func (m *matrix) run(versions []version) error {
	if m.only != "" && m.only != headers && !slices.Contains(names(), m.only) {
		return fmt.Errorf("no suite is called %q", m.only)
	}
	begun := time.Now()
	var err error
	if m.source, err = os.Getwd(); err != nil {
		return err
	}
	if _, err := os.Stat("go.mod"); err != nil {
		return fmt.Errorf("to be run at the top of the source tree: %w", err)
	}
	if m.build, err = os.MkdirTemp("", "tlsd-matrix-"); err != nil {
		return err
	}
	defer os.RemoveAll(m.build)
	if m.only != headers {
		if err := m.buildGo(); err != nil {
			return err
		}
	}
	m.results.order(versions, m.only)
	m.places = make(chan struct{}, atOnce)
	var tested sync.WaitGroup
	for _, v := range versions {
		tested.Go(func() { m.test(v) })
	}
	tested.Wait()
	if m.ctx.Err() != nil {
		return errors.New("interrupted")
	}
	m.results.print(m.out)
	fmt.Fprintf(m.out, "in %v\n", time.Since(begun).Round(time.Second))
	return m.results.verdict()
}

func (m *matrix) wanted(suite string) bool { return m.only == "" || m.only == suite }

// test runs all suites for one version.
func (m *matrix) test(v version) {
	why := v.why
	if why == "" && m.only != headers {
		why = m.cannotEnter(v)
	}
	if why != "" {
		m.say("OpenSSL %s is SKIPPED: %s", v.name, why)
	}
	if m.wanted(headers) {
		r := result{missing: v.why}
		if v.dir != "" {
			r = m.headers(v)
		}
		m.results.add(v.name, headers, r)
	}
	var err error
	if why == "" && m.only != headers {
		err = m.buildC(v)
	}
	for _, s := range suites {
		if !m.wanted(s.name) {
			continue
		}
		r := result{missing: why}
		switch {
		case why != "":
		case err != nil:
			m.say("%v", err)
			r.failed++
		default:
			m.places <- struct{}{}
			for _, p := range s.programs {
				if m.ctx.Err() == nil {
					r.plus(m.program(v, p))
				}
			}
			<-m.places
		}
		m.results.add(v.name, s.name, r)
	}
}

func (m *matrix) say(format string, args ...any) {
	m.tell(fmt.Sprintf("matrix: "+format+"\n", args...))
}

// tell prints a text in one piece.
func (m *matrix) tell(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	io.WriteString(m.out, text)
}

// inRoot is a command that runs in a version's root. dir is its working directory, in the source
// tree.
func (m *matrix) inRoot(ctx context.Context, v version, dir string, command ...string) *exec.Cmd {
	args := []string{"--mount", "--pid", "--net", "--fork", "--kill-child"}
	if os.Geteuid() != 0 {
		args = append(args, "--map-root-user")
	}
	args = append(args, "sh", "-c", enter, "enter", filepath.Join(v.dir, "root"), m.source,
		m.binDir(v), dir)
	cmd := exec.CommandContext(ctx, "unshare", append(args, command...)...)
	cmd.Env = append(os.Environ(), "OPENSSL="+v.name)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// cannotEnter says why a version's root cannot be used, or returns "".
func (m *matrix) cannotEnter(v version) string {
	ctx, cancel := context.WithTimeout(m.ctx, 30*time.Second)
	defer cancel()
	// enter.sh copies all programs from the version's binDir, and fails if there are none. So
	// the Go programs must be there now.
	if err := copyFiles(m.binDir(v), m.goDir()); err != nil {
		return err.Error()
	}
	out, err := m.inRoot(ctx, v, ".", "openssl", "version").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("its root cannot be entered: %v: %s", err,
			strings.TrimSpace(string(out)))
	}
	m.say("%s, in %s", strings.TrimSpace(string(out)), v.dir)
	return ""
}

// program runs one test program in a root.
func (m *matrix) program(v version, p program) result {
	ctx, cancel := context.WithTimeout(m.ctx, suiteTime)
	defer cancel()
	args := append([]string{"/tmp/bin/" + p.file(), "-test.v=test2json", "-test.paniconexit0",
		"-test.timeout=" + (suiteTime - 30*time.Second).String()}, p.args...)
	cmd := m.inRoot(ctx, v, p.pkg, args...)
	cmd.Env = append(cmd.Env, "LEVEL="+p.level)
	begun := time.Now()
	var said strings.Builder
	r, err := m.count(cmd, &said)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil && r.failed == 0 {
		m.say("%s, %s: %v", v.name, p.pkg, err)
		// If the program fails but no test has failed, the program has crashed, or its
		// TestMain has found something left over, such as a goroutine.
		r.failed++
	}
	if r.passed+r.failed == 0 {
		m.say("%s, %s: no test has been run", v.name, p.pkg)
		r.failed++
	}
	what := p.pkg
	if p.level != "" {
		what += " (" + p.level + ")"
	}
	m.tell(fmt.Sprintf("%smatrix: %s, %s: %s in %v\n", said.String(), v.name, what, r,
		time.Since(begun).Round(time.Second)))
	return r
}
