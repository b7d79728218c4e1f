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

// The documents and the sources agree, and name files, flags and tests that exist.

const top = "../.." // the top folder of the source tree

// maxLines is the limit of a source file. A longer file has more than one subject.
const maxLines = 600

// The project must not name folders of a machine on which it is built. The expression is written so
// that it does not match itself.
var buildPath = regexp.MustCompile(`(^|[^\w./*$}-])/(w` + `ork|r` + `oot|h` + `ome/\w+)/`)

func TestTextsNameNoPathOfTheMachine(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"/w" + "ork/", "/r" + "oot/x", "/h" + "ome/x/"} {
		if !buildPath.MatchString("cd " + folder) {
			t.Errorf("the expression of this test does not match the path %s", folder)
		}
	}
	all := texts(t)
	if len(all) < 500 {
		t.Errorf("found only %d texts; this test needs at least 500", len(all))
	}
	for path, text := range all {
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
		if ext := filepath.Ext(path); ext != ".go" && ext != ".c" && ext != ".h" ||
			strings.HasSuffix(path, "_test.go") {
			continue
		}
		sources++
		if n := bytes.Count(text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines; at most %d are allowed, because a file has "+
				"one subject", path, n, maxLines)
		}
	}
	if sources == 0 {
		t.Error("there are no sources: this test checks nothing")
	}
}

// The table of flags in docs/settings.md and tlsd --help are the same list, in the same order.
func TestSettingsHaveTheFlagsOfTlsd(t *testing.T) {
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
	settings := read(t, "docs/settings.md")
	inHelp := matches(help, `(?m)^\s+(--[a-z-]+)`)
	inSettings := matches(settings, "(?m)^\\| `(--[a-z-]+)")
	if len(inHelp) == 0 || !slices.Equal(inHelp, inSettings) {
		t.Errorf("the lists of flags differ:\ntlsd --help:      %v\ndocs/settings.md: %v",
			inHelp, inSettings)
	}
	// A flag that a document names, as in `tlsd --socket`, must exist, too.
	for path, text := range documents(t) {
		for _, f := range matches(text, "`tlsd (--[a-z-]+)") {
			if !slices.Contains(inHelp, f) {
				t.Errorf("%s mentions %s, which tlsd does not know", path, f)
			}
		}
	}
}

// The guide for users names every variable that steers the plugin.
func TestTheGuideHasTheVariablesOfThePlugin(t *testing.T) {
	t.Parallel()
	var used []string
	for path, text := range texts(t) {
		if strings.HasPrefix(path, "cmd/tlsshim/plugin/") {
			used = append(used, matches(text, `(?:setting|getenv)\("(\w+)"\)`)...)
		}
	}
	inGuide := matches(read(t, "docs/user.md"), "(?m)^\\| `([A-Z_]+)` \\|")
	for _, name := range used {
		if name != "PATH" && !slices.Contains(inGuide, name) {
			t.Errorf("the plugin reads %s, which the table of docs/user.md "+
				"does not have", name)
		}
	}
	for _, name := range inGuide {
		if !slices.Contains(used, name) && strings.HasPrefix(name, "TLSD_") {
			t.Errorf("docs/user.md has %s, which the plugin does not read", name)
		}
	}
	if len(used) == 0 {
		t.Error("the plugin reads no variables: this test checks nothing")
	}
}

// Each file and each folder that a document links to or names must exist.
func TestDocumentsNameWhatExists(t *testing.T) {
	t.Parallel()
	links, paths := 0, 0
	for document, text := range documents(t) {
		for _, link := range matches(text, `\]\(([\w./-]+)(?:#[\w-]+)?\)`) {
			links++
			if _, err := os.Stat(filepath.Join(top, filepath.Dir(document),
				link)); err != nil {
				t.Errorf("%s links to %s: %v", document, link, err)
			}
		}
		// A path in backquotes that begins with a folder of the source tree.
		for _, path := range matches(text, "`((?:bench|cmd|docs|examples|internal|openssl|packaging|"+
			"rpc|scripts|session|test)(?:/[\\w./-]*)?)`") {
			paths++
			if _, err := os.Stat(filepath.Join(top, path)); err != nil &&
				!strings.HasPrefix(path, "bench/out/") {
				t.Errorf("%s names %s: %v", document, path, err)
			}
		}
	}
	if links < 30 || paths < 30 {
		t.Errorf("found only %d links and %d paths; this test needs at least 30 of each",
			links, paths)
	}
}

// A link such as file.md#part leads to a heading of file.md. GitHub makes the part's name from the
// heading: in small letters, with - for a blank.
func TestLinksLeadToHeadings(t *testing.T) {
	t.Parallel()
	all := documents(t)
	found := 0
	for document, text := range all {
		for _, m := range regexp.MustCompile(`\]\(([\w./-]*)#([\w-]+)\)`).FindAllSubmatch(
			text, -1) {
			found++
			target := document
			if len(m[1]) > 0 {
				target = filepath.Join(filepath.Dir(document), string(m[1]))
			}
			var anchors []string
			for _, heading := range matches(all[target], `(?m)^#+ (.+)$`) {
				plain := regexp.MustCompile(`[^\w -]`).ReplaceAllString(
					strings.ToLower(heading), "")
				anchors = append(anchors, strings.ReplaceAll(plain, " ", "-"))
			}
			if !slices.Contains(anchors, string(m[2])) {
				t.Errorf("%s links to %s#%s, which is not among the headings %v",
					document, target, m[2], anchors)
			}
		}
	}
	if found < 5 {
		t.Errorf("found only %d links to headings; this test needs at least 5", found)
	}
}

// Each test that SECURITY.md names must exist.
func TestSecurityNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	var functions []string
	for path, text := range texts(t) {
		if strings.HasSuffix(path, "_test.go") {
			functions = append(functions, matches(text, `(?m)^func (Test\w+)\(`)...)
		}
	}
	named := matches(read(t, "SECURITY.md"), `\b(Test[A-Z]\w+)`)
	if len(named) < 50 {
		t.Errorf("SECURITY.md names only %d tests; this test needs at least 50", len(named))
	}
	for _, name := range named {
		if !slices.Contains(functions, name) {
			t.Errorf("SECURITY.md names the test %s, but no package has it", name)
		}
	}
}

// documents gives the Markdown files of the source tree.
func documents(t *testing.T) map[string][]byte {
	t.Helper()
	all := texts(t)
	for path := range all {
		if filepath.Ext(path) != ".md" {
			delete(all, path)
		}
	}
	return all
}

// read gives a file of the source tree.
func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// matches returns the text of the expression's first group for each match.
func matches(text []byte, expression string) []string {
	var found []string
	for _, m := range regexp.MustCompile(expression).FindAllSubmatch(text, -1) {
		found = append(found, string(m[1]))
	}
	return found
}

// texts returns the text files of the source tree by path, without built files.
func texts(t *testing.T) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(top, path) // no error, because path is below top
		switch {
		case err != nil:
			return err
		case e.IsDir() && (name == ".git" || name == "bin"):
			return filepath.SkipDir
		case !e.Type().IsRegular() || name == ".git": // in a linked worktree .git is a file
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
