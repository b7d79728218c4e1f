package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Documents that name tests: a folder in backquotes, and behind it the functions of that folder.
var naming = []string{"docs/features.md"}

var (
	named    = regexp.MustCompile("`([a-z][a-z/0-9]*)`|\\b(Test[A-Z]\\w*)")
	declares = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// A test that a document names is there.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	for _, name := range naming {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		found, folder := 0, ""
		for i, paragraph := range strings.Split(string(text), "\n\n") {
			for _, m := range named.FindAllStringSubmatch(paragraph, -1) {
				if m[1] != "" {
					if len(testsOf(t, m[1])) > 0 {
						folder = m[1]
					}
					continue
				}
				found++
				if !slices.Contains(testsOf(t, folder), m[2]) {
					t.Errorf("%s, paragraph %d: %s has no test %s",
						name, i+1, folder, m[2])
				}
			}
		}
		if found == 0 {
			t.Errorf("%s names no tests: this checks nothing", name)
		}
	}
}

// Each line of the tables in docs/features.md has a test in its second column, which is about tlsd.
func TestEachFeatureNamesItsTest(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(top, "docs/features.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || strings.HasPrefix(line, "|---") ||
			strings.HasPrefix(line, "| |") {
			continue
		}
		rows++
		if !regexp.MustCompile("`[a-z/0-9]+` Test[A-Z]").MatchString(cells[2]) {
			t.Errorf("no test for%s: %s", cells[1], cells[2])
		}
	}
	if rows < 20 {
		t.Errorf("found only %d lines: this checks nothing", rows)
	}
}

// testsOf gives the test functions of a folder, none if it is no folder of the source tree.
func testsOf(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches(text, declares.String())...)
	}
	return found
}
