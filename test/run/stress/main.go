// Command stress runs the tests of packages many times, in a random order and beside programs that
// use the processor. It shows which results depend on the speed of the machine.
//
//	go run ./test/run/stress [-n 20] [-hogs 8] [-race] [-run REGEXP] [-out DIR] [PACKAGE...]
//
// Each test program is compiled once. It then runs n times, with GOMAXPROCS 1, 2 and 8 in turn and
// a new seed for the order each time. With each of these values, up to 8 parallel tests of the
// program run at the same time. After each run stress prints how many tests have passed and how
// many were skipped, how long the run took, and the load average of the system. A run in which no
// test has passed counts as failed. stress keeps the output of a failed run in a file in DIR. The
// first line of this file is the command that repeats the run.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// procs are the values of GOMAXPROCS, which runs take in turn.
var procs = []int{1, 2, 8}

// parallel is the limit of parallel tests. The default limit is GOMAXPROCS: with 1, the tests would
// run one after another.
const parallel = "-test.parallel=8"

type stress struct {
	n       int
	hogs    int
	race    bool
	run     string
	timeout time.Duration
	out     string
}

func main() {
	s := stress{}
	flag.IntVar(&s.n, "n", 20, "how often each package runs")
	flag.IntVar(&s.hogs, "hogs", 8, "how many threads only use the processor, beside the tests")
	flag.BoolVar(&s.race, "race", false, "compile with the race detector")
	flag.StringVar(&s.run, "run", "", "only tests whose names match `REGEXP`")
	flag.DurationVar(&s.timeout, "timeout", 20*time.Minute, "time limit of one run; only a "+
		"run that hangs takes so long")
	flag.StringVar(&s.out, "out", "bin/stress", "`DIR` for test programs and for the output "+
		"of runs that fail")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := s.all(ctx, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stress:", err)
		os.Exit(1)
	}
	if failed > 0 {
		fmt.Printf("stress: %d runs failed; their output is in %s\n", failed, s.out)
		os.Exit(1)
	}
}

// all stresses each package and returns the number of runs that failed.
func (s *stress) all(ctx context.Context, patterns []string) (failed int, err error) {
	if s.out, err = filepath.Abs(s.out); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return 0, err
	}
	packages, err := s.compile(ctx, patterns)
	if err != nil {
		return 0, err
	}
	hog(s.hogs)
	for _, p := range packages {
		bad, err := s.repeat(ctx, p)
		if failed += bad; err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// A pkg is a package with tests.
type pkg struct{ path, dir, program string }

// compile builds the test programs of the packages.
func (s *stress) compile(ctx context.Context, patterns []string) (packages []pkg, err error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	const format = `{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}`
	list, err := s.goTool(ctx, append([]string{"list", "-f", format}, patterns...)...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(list) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		program := filepath.Join(s.out, strings.ReplaceAll(path, "/", "-")+".test")
		args := []string{"test", "-c", "-o", program, path}
		if s.race {
			args = []string{"test", "-race", "-c", "-o", program, path}
		}
		if _, err := s.goTool(ctx, args...); err != nil {
			return nil, err
		}
		packages = append(packages, pkg{path, dir, program})
	}
	return packages, nil
}

func (s *stress) goTool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cgo := "CGO_ENABLED=0"
	if s.race {
		cgo = "CGO_ENABLED=1" // the race detector needs it
	}
	cmd.Env = append(os.Environ(), cgo)
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, wrong.Bytes())
	}
	return string(out), nil
}

// repeat runs the tests of a package n times, and reports each run and the result.
func (s *stress) repeat(ctx context.Context, p pkg) (failed int, err error) {
	began, longest := time.Now(), time.Duration(0)
	for i := range s.n {
		start, procs := time.Now(), procs[i%len(procs)]
		tests, kept, err := s.once(ctx, p, i+1, procs, rand.Uint32())
		if err != nil {
			return failed, err
		}
		took, result := time.Since(start), tests.String()
		longest = max(longest, took)
		if kept != "" {
			failed++
			result += ", FAILED: " + kept
		}
		fmt.Printf("%-28s run %d of %d, GOMAXPROCS=%d, %s, load %s: %s\n", p.path, i+1,
			s.n, procs, took.Round(time.Second/10), load(), result)
	}
	fmt.Printf("%-28s %d runs, %d failed, %s, longest %s\n", p.path, s.n, failed,
		time.Since(began).Round(time.Second), longest.Round(time.Second/10))
	return failed, nil
}

// load is the system's load average of one minute (proc_loadavg(5)).
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return minute
}

// once runs the tests of a package and counts them. If the run has failed, it writes the output to
// a file, and returns the file's name.
func (s *stress) once(ctx context.Context, p pkg, number, procs int, seed uint32) (tests counts,
	kept string, err error) {
	args := []string{"-test.v", fmt.Sprintf("-test.shuffle=%d", seed), parallel,
		"-test.timeout=" + s.timeout.String()}
	if s.run != "" {
		args = append(args, "-test.run="+s.run)
	}
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), fmt.Sprint("GOMAXPROCS=", procs))
	cmd.WaitDelay = time.Minute // for children that keep the output open
	out, err := cmd.CombinedOutput()
	tests = count(out)
	if err == nil && tests.passed == 0 {
		err = errors.New("no test has passed")
	}
	if err == nil || ctx.Err() != nil {
		return tests, "", ctx.Err()
	}
	name := strings.TrimSuffix(p.program, ".test") + fmt.Sprintf("-%d-%d.log", number, seed)
	again := fmt.Sprintf("cd %s && GOMAXPROCS=%d %s '%s' # %d hogs; %v\n", p.dir,
		procs, p.program,
		strings.Join(args, "' '"), s.hogs, err)
	return tests, name, os.WriteFile(name, append([]byte(again), out...), 0o644)
}

// counts are numbers of tests. Of a test with subtests, only the subtests are counted.
type counts struct{ passed, skipped int }

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d skipped", c.passed, c.skipped)
}

var ended = regexp.MustCompile(`--- (PASS|SKIP): (\S+) \(`)

// count counts the tests in the output of a test program that runs with -test.v.
func count(out []byte) (c counts) {
	results, parents := map[string]string{}, map[string]bool{}
	for _, m := range ended.FindAllSubmatch(out, -1) {
		name := string(m[2])
		results[name] = string(m[1])
		for i, char := range name {
			if char == '/' {
				parents[name[:i]] = true
			}
		}
	}
	for name, result := range results {
		switch {
		case parents[name]:
		case result == "PASS":
			c.passed++
		default:
			c.skipped++
		}
	}
	return c
}

// hog keeps threads busy until the program ends.
func hog(threads int) {
	runtime.GOMAXPROCS(threads + 1)
	for range threads {
		go func() {
			for n := uint64(1); ; n = n*6364136223846793005 + 1 {
			}
		}()
	}
}
