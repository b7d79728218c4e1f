package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The documents in docs/ name only things that exist: files, targets of make, and settings of tlsd.
func TestTheDocumentsNameWhatExists(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob(top + "/docs/*.md")
	if err != nil || len(documents) == 0 {
		t.Fatalf("the documents in docs/ are %q, %v; want one or more", documents, err)
	}
	help := succeed(t, exec.Command(filepath.Join(bin, "tlsd"), "--help"))
	makefile, protocol := readFile(t, top+"/Makefile"), readFile(t, top+"/proto.md")
	policy := readFile(t, top+"/examples/policy.toml")
	links, targets, settings := 0, 0, 0
	for _, document := range documents {
		text := readFile(t, document)
		for _, m := range regexp.MustCompile(`\]\(([\w./-]+)\)`).FindAllStringSubmatch(text,
			-1) {
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(document),
				m[1])); err != nil {
				t.Errorf("%s links to a file that does not exist: %v", document,
					err)
			}
		}
		// A command stands in backquotes, or in an indented line.
		for _, m := range regexp.MustCompile("(?m)(?:`|^    )make ([a-z0-9-]+)").
			FindAllStringSubmatch(text, -1) {
			targets++
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which the Makefile lacks", document,
					m[1])
			}
		}
		// In backquotes, a word with a hyphen is a setting, unless the first condition
		// below leaves it out. Settings of one word are not checked.
		for _, m := range regexp.MustCompile("`([a-z]+(?:-[a-z]+)+)(?: = [^`]*)?`").FindAllStringSubmatch(text, -1) {
			if slices.Contains([]string{"trusted-users", "read-only"}, m[1]) ||
				strings.Contains(protocol, "`"+m[1]+"`") ||
				strings.Contains(policy, "\n"+m[1]+" = ") {
				// a name of client.conf, systemd, a handle's options, or the policy
				continue
			}
			settings++
			if !strings.Contains(help, "\n  --"+m[1]) {
				t.Errorf("%s names the setting %s, which tlsd lacks", document,
					m[1])
			}
		}
	}
	if links < 3 || targets < 3 || settings < 5 {
		t.Errorf("found only %d links, %d targets and %d settings, so this test checks "+
			"too little", links, targets, settings)
	}
}

// In sidecar.yaml, the container of the daemon and the container of the program have the same
// mounts, the same socket, and the user of the pod.
func TestTheSidecarSharesWhatMustBeTheSame(t *testing.T) {
	t.Parallel()
	text := readFile(t, top+"/packaging/container/sidecar.yaml")
	_, text, _ = strings.Cut(text, "initContainers:")
	daemon, program, ok := strings.Cut(text, "\n  containers:")
	if !ok {
		t.Fatal("sidecar.yaml lacks the daemon's container or the program's")
	}
	for _, expression := range []string{`mountPath: (\S+)`,
		`name: TLSD_SOCKET\n\s+value: (\S+)`} {
		re := regexp.MustCompile(expression)
		a, b := re.FindAllStringSubmatch(daemon, -1), re.FindAllStringSubmatch(program, -1)
		if len(a) == 0 || !slices.EqualFunc(a, b,
			func(x, y []string) bool { return x[1] == y[1] }) {
			t.Errorf("%s: %v for the daemon, %v for the program, want the same",
				expression, a, b)
		}
	}
	if n := strings.Count(text, "runAsUser"); n > 0 {
		t.Errorf("%d containers have their own runAsUser, want none: the pod has it", n)
	}
}
