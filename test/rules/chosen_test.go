package rules

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Programs that run a part of the tests choose them by name. If a name is wrong, a test is missing
// from the run, and nobody notices.

// choosers are the files that choose tests by name.
var choosers = []string{"Makefile", "scripts/arm64.sh",
	"test/run/matrix/run.go", "test/faults/main_test.go"}

var (
	// ^Test(One|Another): TestOne and TestAnother are the beginnings of names
	beginnings = `\^Test\(([\w|]+)\)`
	// TestOne, alone or in a list: a whole name, or the beginning of longer names
	wholeNames = `[\^(|](Test[A-Z]\w+)`
	// -run 'One|Another' in a recipe: One and Another may stand anywhere in a name
	anywhere = `-run '([A-Z][A-Za-z|]*)'`
	// a string that is continued in the next line
	continued = regexp.MustCompile(`" \+\n\s*"`)
)

func TestChosenTestsExist(t *testing.T) {
	t.Parallel()
	var tests []string
	for path, text := range texts(t) {
		if strings.HasSuffix(path, "_test.go") {
			tests = append(tests, matches(text, declares.String())...)
		}
	}
	found := 0
	check := func(file, part string, fits func(test, part string) bool) {
		found++
		if !slices.ContainsFunc(tests, func(test string) bool { return fits(test, part) }) {
			t.Errorf("%s chooses the test %q, but no package has it", file, part)
		}
	}
	for _, file := range choosers {
		text := continued.ReplaceAll(read(t, file), nil)
		for _, list := range matches(text, beginnings) {
			for part := range strings.SplitSeq(list, "|") {
				check(file, "Test"+part, strings.HasPrefix)
			}
		}
		for _, name := range matches(text, wholeNames) {
			check(file, name, strings.HasPrefix)
		}
		for _, list := range matches(text, anywhere) {
			for part := range strings.SplitSeq(list, "|") {
				check(file, part, strings.Contains)
			}
		}
	}
	if found < 40 {
		t.Errorf("found only %d chosen tests; this test needs at least 40", found)
	}
}
