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

// Hold compares the generated part of the file with text, which ends with a newline. With -update
// it writes the part instead.
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
	if err := os.WriteFile(path, []byte(before+text+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// split divides a file into the text up to the line that begins the part, the part, and the rest.
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

// Text escapes a text for mdoc(7) and breaks it after each sentence and at 78 columns.
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

// Quote quotes a text without backslashes, for a completion of bash, zsh or fish.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Argument escapes a word that is an argument of a macro.
func Argument(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "…", "...", `"`, `\(dq`).Replace(s)
	return `"` + s + `"`
}
