package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// An event is a line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // the package that is built, only in events about building
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// A counter reads events, prints the interesting ones, and counts tests. Of a test with subtests,
// only the subtests are counted. But if the test fails while none of its subtests fails, it counts
// as one failure.
type counter struct {
	out io.Writer

	passed, failed int
	skipped        int
	skips          []skip // one for each package and reason

	packages map[string]*result
	builds   map[string]string // what the compiler says, by import path
}

// A result is the state of one package.
type result struct {
	tests   map[string]*testResult
	names   []string        // of the tests, in the order in which they began
	parents map[string]bool // the tests that have subtests
	output  strings.Builder // the output that belongs to no test
}

type testResult struct {
	action string // the most recent one; at the end "pass", "fail" or "skip"
	output strings.Builder
}

func (c *counter) read(r io.Reader) error {
	c.packages, c.builds = map[string]*result{}, map[string]string{}
	events := json.NewDecoder(r)
	for {
		var e event
		switch err := events.Decode(&e); {
		case errors.Is(err, io.EOF):
			for name := range c.packages { // no last event: go test was killed
				c.end(name, event{Action: "fail", Package: name})
			}
			return nil
		case err != nil:
			io.Copy(io.Discard, r)
			return fmt.Errorf("go test -json: %w", err)
		}
		c.take(e)
	}
}

func (c *counter) take(e event) {
	if e.Action == "build-output" {
		c.builds[e.ImportPath] += e.Output
	}
	if e.Package == "" {
		return
	}
	p := c.packages[e.Package]
	if p == nil {
		p = &result{tests: map[string]*testResult{}, parents: map[string]bool{}}
		c.packages[e.Package] = p
	}
	if e.Test == "" {
		switch e.Action {
		case "output":
			p.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			c.end(e.Package, e)
		}
		return
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &testResult{}
		p.tests[e.Test] = t
		p.names = append(p.names, e.Test)
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
			p.parents[e.Test[:i]] = true
		}
	}
	if e.Action == "output" {
		t.output.WriteString(e.Output)
		return
	}
	t.action = e.Action
}

// end counts the tests of a finished package, and prints its line.
func (c *counter) end(name string, e event) {
	p := c.packages[name]
	delete(c.packages, name)
	if e.Action == "skip" { // the package has no tests
		return
	}
	passed, skipped, bad := 0, 0, []string{}
	for _, test := range p.names {
		switch t := p.tests[test]; t.action {
		case "pass":
			if !p.parents[test] {
				passed++
			}
		case "skip":
			if !p.parents[test] {
				skipped++
				c.skip(name, test, reason(t.output.String()))
			}
		default: // failed, or was running at the end
			bad = append(bad, test)
		}
	}
	failed := 0
	for _, test := range bad {
		below := func(other string) bool { return strings.HasPrefix(other, test+"/") }
		if !slices.ContainsFunc(bad, below) {
			failed++
		}
	}
	if e.Action == "fail" && failed == 0 {
		// the package itself has failed: it was not built, or something is wrong after its
		// tests
		failed = 1
	}
	c.passed += passed
	c.failed += failed
	state := "ok  "
	if failed > 0 {
		state = "FAIL"
		c.explain(p, bad)
	}
	line := fmt.Sprintf("%s %-28s %6.1fs  %d passed", state, name, e.Elapsed, passed)
	if failed > 0 {
		line += fmt.Sprintf(", %d failed", failed)
	}
	if skipped > 0 {
		line += fmt.Sprintf(", %d skipped", skipped)
	}
	fmt.Fprintln(c.out, line)
}

// A skip is one reason why tests of a package were skipped.
type skip struct {
	pkg, why, first string // first is the name of the first of these tests
	tests           int
}

func (c *counter) skip(pkg, test, why string) {
	c.skipped++
	for i, s := range c.skips {
		if s.pkg == pkg && s.why == why {
			c.skips[i].tests++
			return
		}
	}
	c.skips = append(c.skips, skip{pkg, why, test, 1})
}

// explain prints everything known about a failure.
func (c *counter) explain(p *result, bad []string) {
	for _, text := range c.builds {
		fmt.Fprint(c.out, text)
	}
	clear(c.builds)
	for _, test := range bad {
		fmt.Fprint(c.out, p.tests[test].output.String())
	}
	fmt.Fprint(c.out, p.output.String())
}

var place = regexp.MustCompile(`^\s+\w+\.go:\d+: `)

// reason finds the reason in the output of a skipped test.
func reason(output string) string {
	why := "no reason given"
	for line := range strings.Lines(output) {
		if at := place.FindString(line); at != "" {
			why = strings.TrimSpace(line[len(at):])
		}
	}
	return why
}

// summary prints the end of the output.
func (c *counter) summary() {
	for _, s := range c.skips {
		fmt.Fprintf(c.out, "skipped %d of %s, such as %s: %s\n", s.tests, s.pkg,
			s.first, s.why)
	}
	fmt.Fprintf(c.out, "%d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped)
}
