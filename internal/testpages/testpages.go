// Package testpages keeps the manual pages, the sample of the configuration file, the shell
// completions and the seccomp filter equal to the tables of the programs. A file has its generated
// part between two lines with the words "begin generated" and "end generated"; the rest is written
// by hand.
//
//	func TestPages(t *testing.T) { testpages.Hold(t, "../../packaging/man/tlsd.8", text) }
//
// make pages writes the generated parts anew.
package testpages

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated parts of manual pages and "+
	"completions anew")

const begin, end = "begin generated", "end generated"

// Hold fails the test if the generated part of the file differs from text, which must end with a
// newline. With -update it writes text into the file instead.
func Hold(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, part, after := split(string(file))
	if after == "" {
		t.Fatalf("%s has no lines %q and %q", path, begin, end)
	}
	if part == text {
		return
	}
	if !*update {
		t.Errorf("%s is not what the program's tables say: run make pages", path)
		return
	}
	// A parallel test may read the file, so it must be whole at any time.
	err = os.WriteFile(path+".new", []byte(before+text+after), 0o644)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// split divides a file into three: all up to and with the line "begin generated", the generated
// part, and the rest.
func split(file string) (before, part, after string) {
	var b [3]strings.Builder
	i := 0
	for line := range strings.Lines(file) {
		if i == 1 && strings.Contains(line, end) {
			i = 2
		}
		b[i].WriteString(line)
		if i == 0 && strings.Contains(line, begin) {
			i = 1
		}
	}
	return b[0].String(), b[1].String(), b[2].String()
}

// Text escapes a text for mdoc(7). It begins a new line after each sentence, and before a line
// would have more than 78 columns.
func Text(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "…", "...", "’", "'").Replace(s)
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(s) {
		switch {
		case column == 0 && (strings.HasPrefix(word, ".") || strings.HasPrefix(word, "'")):
			word = `\&` + word
		case column == 0:
		case column+len(word) > 77:
			b.WriteString("\n")
			column = 0
			if strings.HasPrefix(word, ".") || strings.HasPrefix(word, "'") {
				word = `\&` + word
			}
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += len(word)
		if strings.HasSuffix(word, ".") && !strings.HasSuffix(word, "...") {
			b.WriteString("\n")
			column = 0
		}
	}
	return strings.TrimSuffix(b.String(), "\n") + "\n"
}

// Quote puts a text in single quotes, for a completion of bash, zsh or fish. The text must have no
// backslashes, because only fish would interpret them.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Argument quotes a text that is one argument of a macro of mdoc(7).
func Argument(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "…", "...", `"`, `\(dq`).Replace(s)
	return `"` + s + `"`
}
