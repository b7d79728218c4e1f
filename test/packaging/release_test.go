//go:build packages

package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// scripts/release.sh refuses a tree that is not ready for a release. From a tree that is ready, it
// makes the files of the release and the tag.
func TestPackagesOfARelease(t *testing.T) {
	need(t, "git", "sha256sum", "dpkg-deb")
	dir := copyOfSource(t, "tlsd")
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Environ(), "MAKEFLAGS=", "GIT_AUTHOR_NAME=t",
			"GIT_AUTHOR_EMAIL=t", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(name string, args ...string) string {
		t.Helper()
		out, err := run(name, args...)
		if err != nil {
			t.Fatalf("%s %v fails: %v\n%s", name, args, err, out)
		}
		return out
	}
	refused := func(want string) {
		t.Helper()
		if out, err := run("sh", "scripts/release.sh", "--dry-run", "9.8.7"); err == nil ||
			!strings.Contains(out, want) {
			t.Errorf("release.sh ends with %v, and prints %s; want a failure with %q",
				err, out, want)
		}
	}
	replace := func(name, from, to string) {
		t.Helper()
		path := filepath.Join(dir, name)
		text := readFile(t, path)
		if !strings.Contains(text, from) {
			t.Fatalf("%s has no %q", name, from)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(text, from, to, 1)),
			0o644); err != nil {
			t.Fatal(err)
		}
	}
	must("git", "init", "-q")
	must("git", "add", ".")
	must("git", "commit", "-q", "-m", "all")

	version := strings.TrimSpace(must("sh", "scripts/version.sh"))
	refused("internal/version has " + version)
	replace("internal/version/version.go", `"`+version+`"`, `"9.8.7"`)
	refused("the work tree has changes")
	must("git", "commit", "-q", "-a", "-m", "number")
	refused("CHANGELOG.md has no line")
	replace("CHANGELOG.md", "\n## ",
		"\n## 9.8.7 - 2031-02-03\n\n- **Everything** is new.\n\n## ")
	must("git", "commit", "-q", "-a", "-m", "changelog")

	must("sh", "scripts/release.sh", "--dry-run", "9.8.7")
	if tags := must("git", "tag"); tags != "" {
		t.Errorf("a dry run has made the tag %s", tags)
	}
	out := filepath.Join(dir, "bin/release/9.8.7")
	sums := readFile(t, out+"/SHA256SUMS")
	for _, name := range []string{"tlsd_9.8.7-1_" + goarch(t) + ".deb", "tlsd-9.8.7-1.",
		"tlsd-9.8.7.tar.gz", "NOTES.md"} {
		if !strings.Contains(sums, "  "+name) {
			t.Errorf("the release has no %s:\n%s", name, sums)
		}
	}
	if n := strings.Count(sums, "\n"); n != 4 {
		t.Errorf("the release has %d files, want 4:\n%s", n, sums)
	}
	must("sh", "-c", "cd bin/release/9.8.7 && sha256sum --quiet -c SHA256SUMS")
	if notes := readFile(t, out+"/NOTES.md"); notes != "- **Everything** is new.\n\n" {
		t.Errorf("NOTES.md is %q, want the part of CHANGELOG.md about 9.8.7", notes)
	}

	must("dpkg-deb", "-x", out+"/tlsd_9.8.7-1_"+goarch(t)+".deb", dir+"/bin/x")
	commit := strings.TrimSpace(must("git", "rev-parse", "--short=12", "HEAD"))
	if v := must(dir+"/bin/x/usr/bin/tlsd", "--version"); !strings.HasPrefix(v,
		"tlsd 9.8.7 (go1.") || !strings.HasSuffix(v, ", commit "+commit+")\n") {
		t.Errorf("tlsd --version prints %q; want 9.8.7 and commit %s", v, commit)
	}

	must("sh", "scripts/release.sh", "9.8.7")
	if message := must("git", "tag", "-n9", "v9.8.7"); !strings.Contains(message,
		"Everything** is new") {
		t.Errorf("the message of the tag is %q, want the text of CHANGELOG.md", message)
	}
	if again := readFile(t, out+"/SHA256SUMS"); again != sums {
		t.Errorf("the release has other files than its dry run:\n%s\n%s", sums, again)
	}
	refused("the tag v9.8.7 exists")
}

func goarch(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(succeed(t, exec.Command("go", "env", "GOARCH")))
}
