// Command run runs the project's tests and counts them.
//
//	go run ./test/run plain race
//
// It prints a line for each package when the package ends, then why tests were skipped, and at last
// one line: "N passed, N failed, N skipped". Its exit status is 0 if no test failed.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// A suite is one call of go test.
type suite struct {
	name     string
	args     []string
	env      []string
	packages []string
}

// patient lists the packages whose tests wait for long and compute little. go test begins with
// these packages, so that others compute while these wait.
var patient = []string{"./internal/supervisor", "./test/soak"}

// Everything is tested as it is built for users, without cgo. Concurrent code also runs under the
// race detector, which needs cgo.
var suites = []suite{
	{"plain", nil, []string{"CGO_ENABLED=0"}, append(patient, "./...")},
	{"race", []string{"-race"}, []string{"CGO_ENABLED=1"}, []string{"./internal/supervisor",
		"./openssl/...", "./session/...", "./rpc/...", "./internal/..."}},
	{"race-conformance", []string{"-race"},
		[]string{"CGO_ENABLED=1", "TLSD_TEST_LEVEL=in process"},
		[]string{"./test/conformance"}},
}

// common are the arguments of each call of go test. Many tests wait more than they compute. So up
// to 8 tests of a package run at once. The number of packages that run at once is the number of
// processors plus one. vet is off, because make check runs it.
var common = []string{"test", "-json", "-count=1", "-shuffle=on", "-parallel=8", "-vet=off",
	"-timeout=20m", fmt.Sprint("-p=", runtime.GOMAXPROCS(0)+1)}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var chosen []suite
	for _, name := range os.Args[1:] {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			fmt.Fprintf(os.Stderr, "run: there is no suite %q\n", name)
			os.Exit(2)
		}
		chosen = append(chosen, suites[i])
	}
	if len(chosen) == 0 {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/run SUITE...")
		os.Exit(2)
	}
	os.Exit(run(ctx, chosen, os.Stdout))
}

// run runs the suites and returns the exit status.
func run(ctx context.Context, chosen []suite, out io.Writer) int {
	status := 0
	c := &counter{out: out}
	for _, s := range chosen {
		if err := s.run(ctx, c); err != nil {
			status = 1
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				fmt.Fprintf(os.Stderr, "run: %s: %v\n", s.name, err)
			}
		}
	}
	c.summary()
	if c.failed > 0 || c.passed == 0 {
		status = 1
	}
	return status
}

func (s suite) run(ctx context.Context, c *counter) error {
	cmd := exec.CommandContext(ctx, cmp.Or(os.Getenv("GO"), "go"),
		slices.Concat(common, s.args, s.packages)...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "== %s: %s go %s\n", s.name, strings.Join(s.env, " "),
		strings.Join(cmd.Args[1:], " "))
	err = c.read(events)
	return errors.Join(err, cmd.Wait())
}
