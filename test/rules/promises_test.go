package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each test that a document names must exist. Each feature and each promise must name a test.

// The list naming has the documents that name tests. A document names a folder in backquotes, and
// after it test functions of this folder.
var naming = []string{"docs/features.md", "docs/comparison.md", "test/promises.md"}

var (
	named    = regexp.MustCompile("`([a-z][a-z/0-9]*)`|\\b(Test[A-Z]\\w*)")
	declares = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// Each test that a document names must exist, in the folder that the document names.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	known := map[string][]string{} // the tests of each folder
	testsOf := func(folder string) []string {
		tests, ok := known[folder]
		if !ok {
			tests = testsOf(t, folder)
			known[folder] = tests
		}
		return tests
	}
	for _, name := range naming {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		found, folder := 0, ""
		for i, paragraph := range strings.Split(string(text), "\n\n") {
			for _, m := range named.FindAllStringSubmatch(paragraph, -1) {
				if m[1] != "" {
					if len(testsOf(m[1])) > 0 {
						folder = m[1]
					}
					continue
				}
				found++
				if !slices.Contains(testsOf(folder), m[2]) {
					t.Errorf("%s, paragraph %d: the folder %s has no test %s",
						name, i+1, folder, m[2])
				}
			}
		}
		if found == 0 {
			t.Errorf("%s names no tests: this test checks nothing", name)
		}
	}
}

// docs/features.md and docs/comparison.md have tables whose second column is "tlsd". There each row
// names a test, or, in docs/comparison.md, a target of make.
func TestEachFeatureNamesItsTest(t *testing.T) {
	t.Parallel()
	test := "`[a-z/0-9]+` Test[A-Z]"
	for name, shown := range map[string]string{"docs/features.md": test,
		"docs/comparison.md": test + "|`make [a-z0-9-]+`"} {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		rows, about := 0, ""
		for _, line := range strings.Split(string(text), "\n") {
			cells := strings.Split(line, "|")
			if strings.HasPrefix(line, "| |") {
				about = strings.TrimSpace(cells[2])
				continue
			}
			if len(cells) < 4 || strings.HasPrefix(line, "|---") || about != "tlsd" {
				continue
			}
			rows++
			if !regexp.MustCompile(shown).MatchString(cells[2]) {
				t.Errorf("%s: the row%snames no test in its column tlsd:%s", name,
					cells[1], cells[2])
			}
		}
		if rows < 20 {
			t.Errorf("%s: found only %d rows; this test needs at least 20", name, rows)
		}
	}
}

// testsOf returns the test functions of a folder. If the source tree has no such folder, it returns
// none.
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

// Each line of test/promises.md names a test. The file has each chapter of proto.md, and a line for
// each method and each option.
func TestEachPromiseNamesItsTest(t *testing.T) {
	t.Parallel()
	proto, promises := read(t, "proto.md"), read(t, "test/promises.md")
	rows := matches(promises, "(?m)^\\| (.*)$")
	promised := 0
	for _, row := range rows {
		if cells := strings.Split(row, " | "); cells[0] != "promise" && row[0] != '-' {
			promised++
			if !regexp.MustCompile("`[a-z0-9/]+` Test[A-Z]").MatchString(cells[1]) {
				t.Errorf("test/promises.md: the promise %q names no test: %s",
					cells[0], cells[1])
			}
		}
	}
	if promised < 50 {
		t.Errorf("found only %d promises; this test needs at least 50", promised)
	}
	chapters := matches(proto, "(?m)^(##+ .*)$")
	methods := matches(proto, "(?m)^\\| `((?:tls|rpc)\\.\\w+|\\$/\\w+)` \\|")
	options := matches(part(proto, "| option | of |"), "(?m)^\\| `([a-z-]+)` \\|")
	if len(chapters) < 8 || len(methods) < 25 || len(options) < 10 {
		t.Errorf("found the chapters %q, the methods %q and the options %q: "+
			"this test checks too little", chapters, methods, options)
	}
	for _, chapter := range chapters {
		if !strings.Contains(string(promises), "\n"+chapter+"\n") {
			t.Errorf("test/promises.md lacks the chapter %q of proto.md", chapter)
		}
	}
	for _, name := range methods {
		if !strings.Contains(string(promises), "\n| `"+name+"`: ") {
			t.Errorf("test/promises.md has no line for the method %s", name)
		}
	}
	for _, name := range options {
		if !strings.Contains(string(promises), "\n| option `"+name+"` |") {
			t.Errorf("test/promises.md has no line for the option %s", name)
		}
	}
}

// part returns the paragraph of text that begins with start, without start itself.
func part(text []byte, start string) []byte {
	_, behind, _ := strings.Cut(string(text), "\n"+start)
	paragraph, _, _ := strings.Cut(behind, "\n\n")
	return []byte(paragraph)
}
