package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
)

// Results and how they are counted.

// A result is one cell of the matrix.
type result struct {
	passed, failed, skipped int
	missing                 string // if nothing was run: the reason
}

func (r *result) plus(other result) {
	r.passed += other.passed
	r.failed += other.failed
	r.skipped += other.skipped
}

func (r result) String() string {
	if r.missing != "" {
		return "SKIPPED"
	}
	return fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed, r.skipped)
}

// count runs a test program through test2json and counts its tests. It shows the output of failed
// tests. If the program fails, count returns its error.
func (m *matrix) count(cmd *exec.Cmd, show io.Writer) (result, error) {
	// test2json starts the program itself and exits with its status.
	convert := exec.CommandContext(m.ctx, "go", append([]string{"tool", "test2json", "-t"},
		cmd.Args...)...)
	convert.Env, convert.WaitDelay = cmd.Env, cmd.WaitDelay
	// A cancel kills the whole process group, to which unshare belongs. When unshare ends, all
	// processes in its namespaces end.
	convert.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	convert.Cancel = func() error { return syscall.Kill(-convert.Process.Pid, syscall.SIGKILL) }
	out, err := convert.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := convert.Start(); err != nil {
		return result{}, err
	}
	r, err := tally(out, show, m.verbose)
	return r, errors.Join(err, convert.Wait())
}

// An event is a line of test2json (go doc test2json).
type event struct {
	Action, Test, Output string
}

// tally counts the tests of a stream of events. It shows the output of tests that fail, output
// outside tests, and the figures of tests that pass. At the end it shows why tests were skipped. A
// test that begins and does not end has failed.
func tally(events io.Reader, show io.Writer, verbose bool) (result, error) {
	var r result
	printed := map[string]*strings.Builder{} // the output of each running test
	skipped := map[string]int{}              // how many tests, by reason
	var last error
	in := bufio.NewReader(events)
	for {
		line, err := in.ReadBytes('\n')
		var e event
		if len(line) > 0 {
			if jerr := json.Unmarshal(line, &e); jerr != nil {
				last = fmt.Errorf("not an event: %q", line)
			}
		}
		switch e.Action {
		case "run":
			printed[e.Test] = &strings.Builder{}
		case "output":
			if b := printed[e.Test]; b != nil && !verbose {
				b.WriteString(e.Output)
			} else if verbose || notable(e.Output) {
				io.WriteString(show, e.Output)
			}
		case "pass", "fail", "skip":
			if e.Test == "" {
				break // not a test, but the program: count looks at its exit status
			}
			switch e.Action {
			case "pass":
				r.passed++
				figures(printed[e.Test].String(), show)
			case "skip":
				r.skipped++
				skipped[reason(printed[e.Test].String())]++
			case "fail":
				r.failed++
				io.WriteString(show, printed[e.Test].String())
			}
			delete(printed, e.Test)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
	}
	for _, b := range printed {
		r.failed++
		io.WriteString(show, b.String())
	}
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(show, "skipped %d: %s\n", skipped[why], why)
	}
	return r, last
}

var place = regexp.MustCompile(`^\s*\w+\.go:\d+: `)

// reason returns why a test was skipped: the last line that the test has printed itself.
func reason(printed string) (why string) {
	for line := range strings.Lines(printed) {
		if notable(line) && !strings.HasPrefix(strings.TrimSpace(line), "--- SKIP") {
			why = strings.TrimSpace(place.ReplaceAllString(line, ""))
		}
	}
	return why
}

// figures shows the figures that a passed test logs: the number of its cases, and the like.
func figures(printed string, show io.Writer) {
	for line := range strings.Lines(printed) {
		if text, ok := strings.CutPrefix(place.ReplaceAllString(line, ""),
			"in figures: "); ok {
			io.WriteString(show, text)
		}
	}
}

// notable says whether a line comes from a test. Lines such as PASS come from go test itself.
func notable(line string) bool {
	return line != "PASS\n" && line != "FAIL\n" && !strings.HasPrefix(line, "=== ") &&
		!strings.HasPrefix(line, "ok ")
}

// A table has the results by version and suite. Versions and suites are in the order of the calls
// of add, unless the method order has set their order before.
type table struct {
	mu               sync.Mutex // guards the other fields
	versions, suites []string
	cells            map[[2]string]result
}

// order sets the order of versions and suites. The value of "only" is the name of the one suite in
// the table, or "" for all suites.
func (t *table) order(versions []version, only string) {
	for _, v := range versions {
		t.versions = append(t.versions, v.name)
	}
	for _, name := range append([]string{headers}, names()...) {
		if only == "" || only == name {
			t.suites = append(t.suites, name)
		}
	}
}

func (t *table) add(version, suite string, r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cells == nil {
		t.cells = map[[2]string]result{}
	}
	t.versions, t.suites = with(t.versions, version), with(t.suites, suite)
	t.cells[[2]string{version, suite}] = r
}

func with(list []string, item string) []string {
	for _, i := range list {
		if i == item {
			return list
		}
	}
	return append(list, item)
}

// print writes the table: passed/failed/skipped.
func (t *table) print(out io.Writer) {
	fmt.Fprintln(out, "\npassed/failed/skipped, subtests counted:")
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "OpenSSL\t"+strings.Join(t.suites, "\t"))
	for _, v := range t.versions {
		line := []string{v}
		for _, s := range t.suites {
			r := t.cells[[2]string{v, s}]
			if r.missing != "" {
				line = append(line, "SKIPPED")
			} else {
				line = append(line, fmt.Sprintf("%d/%d/%d", r.passed,
					r.failed, r.skipped))
			}
		}
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	w.Flush()
	for _, v := range t.versions {
		for _, s := range t.suites {
			if why := t.cells[[2]string{v, s}].missing; why != "" {
				fmt.Fprintf(out, "SKIPPED: %s, %s: %s\n", v, s, why)
			}
		}
	}
}

// errNothing says that everything is skipped. That is no success, and no failure of a suite.
var errNothing = errors.New("nothing was run: all versions are skipped")

// verdict is an error if anything has failed, and errNothing if nothing was run.
func (t *table) verdict() error {
	failed, run := 0, 0
	for _, r := range t.cells {
		failed += r.failed
		run += r.passed + r.failed
	}
	switch {
	case failed > 0:
		return fmt.Errorf("%d checks have failed", failed)
	case run == 0:
		return errNothing
	}
	return nil
}
