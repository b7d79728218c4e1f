package rules

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// A line of Go, C or Markdown has at most 100 columns; a tab goes to the next multiple of 8. These
// lines are exempt, because a break would change them or help nobody:
//
//   - a row of a table, in Markdown;
//   - a line with a URL, or with an image;
//   - a line with a part of a raw string, in Go;
//   - the generated parts of BENCHMARKS.md.
//
// columns.txt has the folders that still have longer lines, each with the number of these lines. If
// a folder has more of them, the test fails. If it has fewer, the test also fails, until the number
// in the file is lowered.
//
//	go test ./test/rules -run Columns -shrink     lowers the numbers in the file
//	go test ./test/rules -run Columns -recount    writes the numbers of today, also higher ones;
//	                                              for use after a merge
const maxColumns = 100

const unfinishedFile = "columns.txt"

var (
	shrink  = flag.Bool("shrink", false, "lower the numbers in "+unfinishedFile)
	recount = flag.Bool("recount", false, "write today's numbers into "+unfinishedFile)
)

func TestLinesHaveAtMost100Columns(t *testing.T) {
	t.Parallel()
	long, files := map[string][]string{}, 0
	for path, text := range texts(t) {
		if !slices.Contains([]string{".go", ".c", ".h", ".md"}, filepath.Ext(path)) {
			continue
		}
		files++
		folder := filepath.Dir(path)
		for _, n := range longLines(path, string(text)) {
			long[folder] = append(long[folder], fmt.Sprintf("%s:%d", path, n))
		}
	}
	if files < 100 {
		t.Errorf("found only %d files; this test needs at least 100", files)
	}
	unfinished := readUnfinished(t)
	if *shrink || *recount {
		writeUnfinished(t, unfinished, long)
		return
	}
	for folder, lines := range long {
		if n := unfinished[folder]; len(lines) > n {
			slices.Sort(lines)
			t.Errorf("%s: %d lines have more than %d columns, and %s allows %d; "+
				"some of them: %s",
				folder, len(lines), maxColumns, unfinishedFile, n,
				strings.Join(lines[:min(len(lines), 10)], " "))
		}
	}
	for folder, n := range unfinished {
		if len(long[folder]) < n {
			t.Errorf("%s has only %d long lines, and %s says %d: run go test "+
				"./test/rules -run Columns -shrink",
				folder, len(long[folder]), unfinishedFile, n)
		}
	}
}

// The check finds a long line, and passes over the exempt ones.
func TestLongLinesAreFound(t *testing.T) {
	t.Parallel()
	word := strings.Repeat("x", 90)
	for _, tt := range []struct {
		path, text string
		want       []int
	}{
		{"a.go", "// " + word + "12345678\n// " + word + "1234567\n", []int{1}},
		{"a.go", "\t\t// " + word + "\n", []int{1}},
		{"a.go", "// " + strings.Repeat("ü", 97) + "\n", nil},
		{"a.go", "// see https://example.com/" + word + "\n", nil},
		{"a.go", "var s = `" + word + word + "`\n", nil},
		{"a.go", "var s = `\n" + word + word + "\n`\n// " + word + word + "\n", []int{4}},
		{"a.c", "/* ` " + word + word + " */\n", []int{1}},
		{"a.md", "| " + word + word + " |\n" + word + word + "\n", []int{2}},
		{"BENCHMARKS.md", "<!-- bench: x -->\n" + word + word + "\n<!-- /bench -->\n" +
			word + word + "\n", []int{4}},
	} {
		if got := longLines(tt.path, tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("%s with the text %.40q…: found the long lines %v, want %v",
				tt.path, tt.text, got, tt.want)
		}
	}
}

// longLines returns the numbers of the lines that are too long and not exempt.
func longLines(path, text string) (numbers []int) {
	markdown, goFile := filepath.Ext(path) == ".md", filepath.Ext(path) == ".go"
	generated, raw := false, false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, "<!-- bench:"):
			generated = true
		case strings.HasPrefix(line, "<!-- /bench"):
			generated = false
		}
		comment := strings.HasPrefix(strings.TrimSpace(line), "//")
		quotes := 0
		if goFile && (raw || !comment) {
			quotes = strings.Count(line, "`")
		}
		literal := raw || quotes > 0
		if quotes%2 == 1 {
			raw = !raw
		}
		exempt := literal || strings.Contains(line, "://") || markdown &&
			(generated || strings.HasPrefix(strings.TrimSpace(line), "|") ||
				strings.HasPrefix(line, "!["))
		if columns(line) > maxColumns && !exempt {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// columns is the width of a line on a screen.
func columns(line string) (n int) {
	for before, after, tab := strings.Cut(line, "\t"); ; before, after,
		tab = strings.Cut(after, "\t") {
		n += utf8.RuneCountInString(before)
		if !tab {
			return n
		}
		n += 8 - n%8
	}
}

// readUnfinished reads columns.txt: the number of long lines by folder.
func readUnfinished(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(unfinishedFile)
	if err != nil {
		t.Fatal(err)
	}
	unfinished := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		number, folder, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || folder == "" {
			t.Fatalf("%s: %q: want NUMBER FOLDER, with a number of at least 1",
				unfinishedFile, line)
		}
		unfinished[folder] = n
	}
	return unfinished
}

// writeUnfinished writes the numbers of today to columns.txt. It raises a number only with
// -recount.
func writeUnfinished(t *testing.T, unfinished map[string]int, long map[string][]string) {
	t.Helper()
	lines := []string{}
	for folder, now := range long {
		n := len(now)
		if !*recount {
			n = min(n, unfinished[folder])
		}
		if n > 0 {
			lines = append(lines, fmt.Sprintf("%d %s\n", n, folder))
		}
	}
	slices.SortFunc(lines, func(a, b string) int {
		_, a, _ = strings.Cut(a, " ")
		_, b, _ = strings.Cut(b, " ")
		return strings.Compare(a, b)
	})
	text := "# Folders with lines of more than 100 columns, and how many. The numbers only " +
		"shrink:\n" +
		"# see columns_test.go.\n" + strings.Join(lines, "")
	if err := os.WriteFile(unfinishedFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
