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

// The manual pages agree with the header and with the code. bash completes words with the files of
// completions.

// The expression comment matches a comment of the header and the function that follows the comment.
var comment = regexp.MustCompile(`(?s)/\*((?:[^*]|\*[^/])*)\*/\nint64_t (tls_\w+)\(([^)]*)\);`)

// For each function, tlsplugin.3 has the text of the comment in tlsplugin.h.
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
		t.Errorf("%d of the %d functions in tlsplugin.h have a comment, want all",
			len(found), len(declared))
	}
	testpages.Hold(t, top+"/packaging/man/tlsplugin.3", b.String())
}

// tlsd-policy.5 has exactly the keys of package policy, in the same order.
func TestPageOfThePolicyHasItsKeys(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(top + "/internal/policy/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the files of package policy are %q, %v; want one or more", files, err)
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
		t.Errorf("package policy has the keys %v, tlsd-policy.5 has %v; want the same",
			keys, inPage)
	}
}

// tlsplugin.3 has each environment variable that docs/user.md lists.
func TestPageOfThePluginHasItsVariables(t *testing.T) {
	t.Parallel()
	page := readFile(t, top+"/packaging/man/tlsplugin.3")
	names := 0
	for _, m := range regexp.MustCompile("(?m)^\\| `(TLSD_[A-Z_]+)` \\|").FindAllStringSubmatch(
		readFile(t, top+"/docs/user.md"), -1) {
		names++
		if !strings.Contains(page, ".It Ev "+m[1]+"\n") {
			t.Errorf("tlsplugin.3 lacks the variable %s of docs/user.md", m[1])
		}
	}
	if names == 0 {
		t.Error("docs/user.md lists no variables, so this test checks nothing")
	}
}

// All five manual pages exist, and every user may read them.
func TestPagesAreWhole(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(top + "/packaging/man/*.[1-8]")
	if err != nil || len(pages) != 5 {
		t.Fatalf("packaging/man has %v (%v), want five pages", pages, err)
	}
	for _, page := range pages {
		info, err := os.Stat(page)
		if err != nil || info.Mode().Perm()&0o044 != 0o044 {
			t.Errorf("%s: %v, %v; want a file that every user may read", page, info,
				err)
		}
	}
}

// bash completes the beginning of an option, a value, a method and a command.
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
			t.Errorf("bash completes %s %s with %q, want %q", tt.program, tt.words, got,
				tt.want)
		}
	}
}
