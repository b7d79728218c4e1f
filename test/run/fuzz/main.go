// Command fuzz runs every fuzz target of the project for some time: the Go ones of all packages,
// and those for the plugin in test/run/fuzz/src, which libFuzzer drives.
//
//	go run ./test/run/fuzz [-time 60s] [-jobs N] [-run REGEXP]
//
// Inputs that fail are saved among the inputs that the tests replay: testdata/fuzz of the package,
// or test/run/fuzz/corpus. The command prints how often each target was executed. It fails if a
// target has found a failure.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// grace is the additional time of a target: for compiling, and for running its kept inputs.
const grace = 5 * time.Minute

func main() {
	length := flag.Duration("time", time.Minute, "how long each target runs")
	jobs := flag.Int("jobs", runtime.NumCPU(), "how many targets run at the same time")
	only := flag.String("run", "", "run only the targets whose name matches `REGEXP`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *length, *jobs, *only); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// A target is run by a command. The expression executions matches the part of the command's output
// that says how often the target was executed.
type target struct {
	name       string
	command    func(ctx context.Context) (*exec.Cmd, error)
	executions *regexp.Regexp
}

func run(ctx context.Context, length time.Duration, jobs int, only string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	targets, err := goTargets(length)
	if err != nil {
		return err
	}
	for _, name := range libFuzzerTargets {
		targets = append(targets,
			target{"plugin " + name, func(ctx context.Context) (*exec.Cmd, error) {
				return libFuzzerCommand(ctx, dir, name, length)
			}, regexp.MustCompile(`stat::number_of_executed_units: *(\d+)`)})
	}

	var all sync.WaitGroup
	slots := make(chan struct{}, jobs)
	failed := make(chan string, len(targets))
	for _, t := range targets {
		if !match.MatchString(t.name) {
			continue
		}
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if !t.run(ctx, length) {
				failed <- t.name
			}
		})
	}
	all.Wait()
	close(failed)
	var names []string
	for name := range failed {
		names = append(names, name)
	}
	if len(names) > 0 {
		return fmt.Errorf("these targets have failed: %s", strings.Join(names, ", "))
	}
	return nil
}

func (t target) run(ctx context.Context, length time.Duration) (ok bool) {
	ctx, cancel := context.WithTimeout(ctx, length+grace)
	defer cancel()
	var out bytes.Buffer
	cmd, err := t.command(ctx)
	if err == nil {
		cmd.Stdout, cmd.Stderr = &out, &out
		err = cmd.Run()
	}
	executions := 0
	for _, m := range t.executions.FindAllStringSubmatch(out.String(), -1) {
		executions, _ = strconv.Atoi(m[1]) // the last match has the total
	}
	// If the time of go test ends in the middle of an execution, go test may report this as a
	// failure. For a real failure it also prints the failing input.
	if err != nil && ctx.Err() == nil && strings.Contains(out.String(), "context deadline "+
		"exceeded") && !strings.Contains(out.String(), "Failing input") {
		err = nil
	}
	if err == nil && executions == 0 {
		err = fmt.Errorf("the target was never executed")
	}
	if err != nil {
		fmt.Printf("%-40s %12d executions, FAILED: %v\n%s\n", t.name, executions, err,
			out.String())
		return false
	}
	fmt.Printf("%-40s %12d executions\n", t.name, executions)
	return true
}

// goTargets finds the fuzz functions of the module.
func goTargets(length time.Duration) (targets []target, err error) {
	function := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)
	executions := regexp.MustCompile(`(?:baseline coverage|execs): (\d+)`)
	err = filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(text, -1) {
			dir, name := filepath.Dir(path), string(m[1])
			// -parallel=1: a target has one worker, because there are as many targets
			// at the same time as processors. -fuzzminimizetime: go test would spend
			// up to a minute on making a new input smaller, even if it does not fail.
			run := func(ctx context.Context) (*exec.Cmd, error) {
				return exec.CommandContext(ctx, "go", "test", "-run=^$",
					"-fuzz=^"+name+"$", "-fuzztime="+length.String(),
					"-fuzzminimizetime=10x", "-parallel=1", "./"+dir), nil
			}
			targets = append(targets, target{dir + " " + name, run, executions})
		}
		return err
	})
	return targets, err
}
