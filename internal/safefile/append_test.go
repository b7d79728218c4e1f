package safefile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// If a user who is not trusted can read or change a file, Append refuses the file. CheckAppend
// returns the same errors, and makes no file.
func TestAppendRefusesFilesThatOthersCanReadOrChange(t *testing.T) {
	t.Parallel()
	p := tree(t)
	own := uint32(os.Getuid())
	testkit.Must(t, os.WriteFile(p("good/private"), []byte("1"), 0o600))
	testkit.Must(t, os.WriteFile(p("good/named"), []byte("1"), 0o600))
	testkit.Must(t, os.Link(p("good/named"), p("good/other-name")))
	testkit.Must(t, os.Symlink("private", p("good/link")))
	for path, want := range map[string]string{
		"good/private":        "",
		"good/new":            "",
		"folder/new2":         "", // folder is a link to a folder, and belongs to the owner
		"sticky/new":          "",
		"good/file":           "its mode is 0644",
		"good/named":          "it has 2 names",
		"good/link":           "it is not a regular file",
		"dangling":            "it is not a regular file",
		"fifo":                "it is not a regular file",
		"good":                "it is not a regular file",
		"group/new":           "the folder " + p("group") + ": its mode is 0775",
		"nothing-there/new":   "nothing-there: no such file",
		"/dev/null":           "it is not a regular file",
		"/proc/self/comm":     "its mode is",
		"/":                   "it is not a regular file",
		"good/private/no-dir": "not a directory",
	} {
		full := path
		if !strings.HasPrefix(path, "/") {
			full = filepath.Join(p(""), path)
		}
		check := CheckAppend(full, own)
		if (check == nil) != (want == "") ||
			check != nil && !strings.Contains(check.Error(), want) {
			t.Errorf("CheckAppend of %s: %v, want %q (empty: no error)", path, check,
				want)
		}
		if _, err := os.Lstat(full); strings.Contains(path, "/new") && err == nil {
			t.Errorf("CheckAppend has made %s", path)
		}
		for _, text := range []string{"a", "b"} {
			f, err := Append(full, own)
			if err == nil {
				_, err = f.WriteString(text)
				testkit.Must(t, f.Close())
			}
			switch {
			case (err == nil) != (want == ""):
				t.Errorf("Append to %s: %v, want %q (empty: no error)", path, err,
					want)
			case err != nil && !strings.Contains(err.Error(), want):
				t.Errorf("Append to %s: %v, want %q", path, err, want)
			}
		}
	}
	for path, want := range map[string]string{
		"good/private": "1ab", "good/new": "ab", "good/new2": "ab",
	} {
		text, err := os.ReadFile(p(path))
		testkit.Must(t, err)
		st, err := os.Stat(p(path))
		testkit.Must(t, err)
		if string(text) != want || st.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v and the content %q, want 0600 and %q", path,
				st.Mode(), text, want)
		}
	}
	if _, err := os.Lstat(p("nothing")); err == nil {
		t.Error("Append has made the file to which the link dangling leads")
	}
}
