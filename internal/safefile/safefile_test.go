package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// tree makes a folder with the files of these tests. The files belong to the user of this process.
// The function that tree returns gives the path of a file in the folder.
func tree(t *testing.T) (p func(name string) string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	testkit.Must(t, err)
	p = func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"good", "group", "others", "sticky"} {
		testkit.Must(t, os.Mkdir(p(name), 0o755))
		testkit.Must(t, os.WriteFile(p(name)+"/file", []byte(name), 0o644))
	}
	testkit.Must(t, os.Chmod(p("group"), 0o775))
	testkit.Must(t, os.Chmod(p("others"), 0o757))
	testkit.Must(t, os.Chmod(p("sticky"), 0o777|fs.ModeSticky))
	for name, target := range map[string]string{"link": p("good/file"),
		"relative": "good/../good/file", "folder": "good", "via-group": p("group/file"),
		"loop": "loop", "dangling": "nothing", "good/up": "..", "to-folder": "good"} {
		testkit.Must(t, os.Symlink(target, p(name)))
	}
	testkit.Must(t, unix.Mkfifo(p("fifo"), 0o600))
	return p
}

// If a user who is not trusted can change a file, or a folder or link on the way to the file, Read
// refuses the file.
func TestReadRefusesFilesThatOthersCanChange(t *testing.T) {
	t.Parallel()
	p := tree(t)
	own := uint32(os.Getuid())
	// want is the content of the file, or a part of the error.
	for path, want := range map[string]string{
		"good/file":          "good",
		"link":               "good",
		"relative":           "good",
		"folder/file":        "good",
		"good/up/good/file":  "good",
		"good//./../link":    "good",
		"sticky/file":        "sticky",
		"group/file":         "the folder " + p("group") + ": its mode is 0775",
		"others/file":        "the folder " + p("others") + ": its mode is 0757",
		"via-group":          "the folder " + p("group") + ": its mode is 0775",
		"loop":               "too many levels",
		"dangling":           p("nothing") + ": no such file",
		"none":               "none: no such file",
		"good":               "it is not a regular file",
		"to-folder":          "it is not a regular file",
		"good/file/x":        "not a directory",
		"fifo":               "it is not a regular file",
		"/dev/null":          "it is not a regular file",
		"/":                  "it is not a regular file",
		"/proc/self/environ": "", // has any content; belongs to this user or root
	} {
		full := path
		if !strings.HasPrefix(path, "/") {
			full = p("") + "/" + path
		}
		text, err := Read(full, 1<<20, own)
		switch {
		case err == nil && want != "" && string(text) != want:
			t.Errorf("Read of %s returns %q, want %q", path, text, want)
		case err != nil && (want == "" || !strings.Contains(err.Error(), want) ||
			!strings.HasPrefix(err.Error(), full+": ")):
			t.Errorf("Read of %s: error %v, want %q", path, err, want)
		}
	}
	if _, err := Read(p("none"), 1, own); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of a file that is not there: %v, want fs.ErrNotExist", err)
	}
	if _, err := Read(p("good/file"), 3, own); err == nil ||
		!strings.Contains(err.Error(), "more than 3 bytes") {
		t.Errorf("Read of a file of 4 bytes, with a limit of 3: %v, want an error", err)
	}
}

// If a file, or a folder or link on the way to the file, belongs to a user whom the caller of Read
// does not trust, Read refuses the file.
func TestForeignFilesFoldersAndLinksAreRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	t.Parallel()
	p := tree(t)
	for name, what := range map[string]string{"good/file": "file", "folder": "the link " +
		p("folder"), "sticky": "the folder " + p("sticky")} {
		testkit.Must(t, os.Lchown(p(name), 1234, 0))
		path := map[string]string{"good/file": "good/file", "folder": "folder/file",
			"sticky": "sticky/file"}[name]
		_, err := Read(p(path), 1<<20)
		if err == nil || !strings.Contains(err.Error(), "it belongs to user 1234, who "+
			"could change it; give it to root (chown)") ||
			!strings.Contains(err.Error(), what) {
			t.Errorf("%s belongs to user 1234: %v; want an error that says so", name,
				err)
		}
		if _, err := Read(p(path), 1<<20, 1234); err != nil {
			t.Errorf("%s belongs to user 1234, who is trusted, but Read returns %v",
				name, err)
		}
		testkit.Must(t, os.Lchown(p(name), 0, 0))
		if _, err := Read(p(path), 1<<20); err != nil {
			t.Errorf("%s belongs to root again, but Read returns %v", name, err)
		}
	}
}
