package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tlsd/internal/testpages"
)

// The pages have what the header and the tables have. The completions complete.

// comment is a comment of the header that stands right before a function.
var comment = regexp.MustCompile(`(?s)/\*((?:[^*]|\*[^/])*)\*/\nint64_t (tls_\w+)\(([^)]*)\);`)

// The page of the plugin has the header's text for each function.
func TestPageOfThePluginIsTheHeader(t *testing.T) {
	t.Parallel()
	header := readFile(t, top+"/cmd/tlsshim/plugin/tlsplugin.h")
	var b strings.Builder
	found := comment.FindAllStringSubmatch(header, -1)
	for i, m := range found {
		if i > 0 {
			b.WriteString(".Pp\n")
		}
		b.WriteString(".Ft int64_t\n.Fo " + m[2] + "\n")
		for _, parameter := range strings.Split(m[3], ",") {
			parameter = regexp.MustCompile(` /\*.*`).ReplaceAllString(
				strings.Join(strings.Fields(parameter), " "), "")
			fmt.Fprintf(&b, ".Fa %s\n", testpages.Argument(parameter))
		}
		b.WriteString(".Fc\n.Pp\n")
		for i, paragraph := range strings.Split(
			regexp.MustCompile(`(?m)^ \* ?`).ReplaceAllString(m[1], ""), "\n\n") {
			if i > 0 {
				b.WriteString(".Pp\n")
			}
			b.WriteString(testpages.Text(paragraph))
		}
	}
	if declared := declared(t); len(found) != len(declared) {
		t.Errorf("%d functions have a comment, of %d", len(found), len(declared))
	}
	testpages.Hold(t, top+"/packaging/man/tlsplugin.3", b.String())
}

// The page of the policy has exactly the keys that there are.
func TestPageOfThePolicyHasItsKeys(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(top + "/internal/policy/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var keys []string
	for _, file := range files {
		for _, m := range regexp.MustCompile(
			`(?m)^\s+Key\w+\s+= "([a-z-]+)"`).FindAllStringSubmatch(readFile(t, file),
			-1) {
			keys = append(keys, m[1])
		}
	}
	var inPage []string
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm ([a-z-]+) `).FindAllStringSubmatch(
		readFile(t, top+"/packaging/man/tlsd-policy.5"), -1) {
		inPage = append(inPage, m[1])
	}
	if len(keys) == 0 || !slices.Equal(keys, inPage) {
		t.Errorf("the policy has %v, the page %v", keys, inPage)
	}
}

// Each variable that the plugin reads is in its page.
func TestPageOfThePluginHasItsVariables(t *testing.T) {
	t.Parallel()
	page := readFile(t, top+"/packaging/man/tlsplugin.3")
	names := 0
	for _, m := range regexp.MustCompile("(?m)^\\| `(TLSD_[A-Z_]+)` \\|").FindAllStringSubmatch(
		readFile(t, top+"/docs/user.md"), -1) {
		names++
		if !strings.Contains(page, ".It Ev "+m[1]+"\n") {
			t.Errorf("the page lacks %s", m[1])
		}
	}
	if names == 0 {
		t.Error("docs/user.md has no variables: this checks nothing")
	}
}

func TestPagesAreWhole(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(top + "/packaging/man/*.[1-8]")
	if err != nil || len(pages) != 5 {
		t.Fatalf("%v, %v: want five pages", pages, err)
	}
	for _, page := range pages {
		info, err := os.Stat(page)
		if err != nil || info.Mode().Perm()&0o044 != 0o044 {
			t.Errorf("%s: %v, %v", page, info, err)
		}
	}
}

// bash completes the beginning of a word from the tables.
func TestCompletionsComplete(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ program, words, want string }{
		{"tlsd", "--log-l", "--log-level"},
		{"tlsd", "--log-level w", "warn"},
		{"tlsshim", "call NewServ", "NewServerContext"},
		{"tlsshim", "do", "doctor"},
	} {
		script := fmt.Sprintf(
			`. ../../packaging/completions/%[1]s.bash; COMP_WORDS=(%[1]s %[2]s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _%[1]s; echo "${COMPREPLY[@]}"`, tt.program, tt.words)
		if got := succeed(t, exec.Command("bash", "-euc", script)); got != tt.want+"\n" {
			t.Errorf("%s %s: %q, want %q", tt.program, tt.words, got, tt.want)
		}
	}
}
