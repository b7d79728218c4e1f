package rules

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const top = "../.." // of the source tree

// maxLines is what a source file may have. A longer one has more than one subject.
const maxLines = 600

// Folders in which somebody builds the project are no part of it. The expression takes care not to
// match itself.
var buildPath = regexp.MustCompile(`(^|[^\w./*$}-])/(w` + `ork|r` + `oot|h` + `ome/\w+)/`)

func TestTextsNameNoPathOfTheMachine(t *testing.T) {
	t.Parallel()
	for path, text := range texts(t) {
		for i, line := range bytes.Split(text, []byte("\n")) {
			if buildPath.Match(line) {
				t.Errorf("%s:%d: names a path of the machine: %s", path, i+1, line)
			}
		}
	}
}

func TestSourceFilesHaveOneSubject(t *testing.T) {
	t.Parallel()
	sources := 0
	for path, text := range texts(t) {
		if ext := filepath.Ext(path); ext != ".go" && ext != ".c" && ext != ".h" || strings.HasSuffix(path, "_test.go") {
			continue
		}
		sources++
		if n := bytes.Count(text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d", path, n, maxLines)
		}
	}
	if sources == 0 {
		t.Error("there are no sources: this checks nothing")
	}
}

// The README's table of flags and tlsd --help are the same list, in the same order.
func TestReadmeHasTheFlagsOfTlsd(t *testing.T) {
	t.Parallel()
	tlsd := filepath.Join(t.TempDir(), "tlsd")
	cmd := exec.Command("go", "build", "-o", tlsd, "tlsd/cmd/tlsd")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	help, err := exec.Command(tlsd, "--help").Output()
	if err != nil {
		t.Fatalf("tlsd --help: %v", err)
	}
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	inHelp := matches(help, `(?m)^\s+(--[a-z-]+)`)
	inReadme := matches(readme, "(?m)^\\| `(--[a-z-]+)")
	if len(inHelp) == 0 || !slices.Equal(inHelp, inReadme) {
		t.Errorf("tlsd --help: %v\nREADME.md:   %v", inHelp, inReadme)
	}
	// What the text mentions elsewhere must exist as well.
	for _, f := range matches(readme, "`tlsd (--[a-z-]+)") {
		if !slices.Contains(inHelp, f) {
			t.Errorf("the README mentions %s, which tlsd does not know", f)
		}
	}
}

// The README names every variable that steers the plugin.
func TestReadmeHasTheVariablesOfThePlugin(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var read []string
	for path, text := range texts(t) {
		if strings.HasPrefix(path, "cmd/tlsshim/plugin/") {
			read = append(read, matches(text, `(?:setting|getenv)\("(\w+)"\)`)...)
		}
	}
	inReadme := matches(readme, "(?m)^\\| `([A-Z_]+)` \\|")
	for _, name := range read {
		if name != "PATH" && !slices.Contains(inReadme, name) {
			t.Errorf("the plugin reads %s, which the README's table does not have", name)
		}
	}
	for _, name := range inReadme {
		if !slices.Contains(read, name) && strings.HasPrefix(name, "TLSD_") {
			t.Errorf("the README has %s, which the plugin does not read", name)
		}
	}
	if len(read) == 0 {
		t.Error("the plugin reads no variables: this checks nothing")
	}
}

// The README leads newcomers to files and folders. They must be there.
func TestReadmeNamesWhatExists(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	// A path in backquotes that begins with a folder of ours, a folder of the table, or the target of a link.
	paths := matches(readme, "`((?:cmd|rpc|session|openssl|internal|examples|scripts|test)(?:/[\\w./-]*)?)`")
	paths = append(paths, matches(readme, `\]\(([\w./-]+)\)`)...)
	if len(paths) < 10 {
		t.Errorf("found only %v: this checks nothing", paths)
	}
	for _, path := range paths {
		if _, err := os.Stat(filepath.Join(top, path)); err != nil {
			t.Errorf("the README names %s: %v", path, err)
		}
	}
}

// matches gives what the first group of the expression matches.
func matches(text []byte, expression string) []string {
	var found []string
	for _, m := range regexp.MustCompile(expression).FindAllSubmatch(text, -1) {
		found = append(found, string(m[1]))
	}
	return found
}

// texts gives the text files of the source tree by their path in it, without what is built.
func texts(t *testing.T) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(top, path) // it is below
		switch {
		case err != nil:
			return err
		case e.IsDir() && (name == ".git" || name == "bin"):
			return filepath.SkipDir
		case !e.Type().IsRegular() || name == ".git": // of a linked worktree .git is a file
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil && utf8.Valid(text) && !bytes.ContainsRune(text, 0) {
			found[name] = text
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
