package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A layout is the way in which a system keeps its CA certificates. The daemon always loads this
// machine's libssl, so in most layouts the places that libssl was built for do not exist.
type layout struct {
	name  string
	files []string          // PEM files with the bundle
	dirs  []string          // directories where the CA's certificate is named by its hash
	links map[string]string // symbolic links
	store []string          // a failed handshake must name one of these stores
}

const (
	// the store in Debian's layout, if this machine's libssl was built for this layout
	compiledIn = "/usr/lib/ssl/certs (system)"
	debianFile = "/etc/ssl/certs/ca-certificates.crt (system); tried: "
	rhelFile   = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
)

var layouts = []layout{
	{
		name:  "Debian",
		files: []string{"/etc/ssl/certs/ca-certificates.crt"},
		dirs:  []string{"/etc/ssl/certs"},
		// as on Debian, the second link leads to a file that does not exist
		links: map[string]string{"/usr/lib/ssl/certs": "/etc/ssl/certs",
			"/usr/lib/ssl/cert.pem": "/etc/ssl/cert.pem"},
		store: []string{compiledIn, debianFile},
	}, {
		name:  "Debian without links by hash",
		files: []string{"/etc/ssl/certs/ca-certificates.crt"},
		links: map[string]string{"/usr/lib/ssl/certs": "/etc/ssl/certs"},
		store: []string{debianFile},
	}, {
		name:  "RHEL 9",
		files: []string{rhelFile},
		links: map[string]string{
			"/etc/pki/tls/certs/ca-bundle.crt": rhelFile,
			"/etc/pki/tls/cert.pem":            rhelFile,
			"/etc/ssl/certs":                   "../pki/tls/certs",
		},
		store: []string{"/etc/pki/tls/certs/ca-bundle.crt (system); tried: ",
			"/etc/pki/tls/cert.pem (system)"},
	}, {
		name:  "RHEL without the old links",
		files: []string{rhelFile},
		store: []string{rhelFile + " (system); tried: "},
	}, {
		name:  "Alpine",
		files: []string{"/etc/ssl/certs/ca-certificates.crt"},
		links: map[string]string{"/etc/ssl/cert.pem": "certs/ca-certificates.crt"},
		store: []string{debianFile, "/etc/ssl/cert.pem (system)"},
	}, {
		name:  "Alpine with the bundle alone",
		files: []string{"/etc/ssl/cert.pem"},
		store: []string{"/etc/ssl/cert.pem (system); tried: ",
			"/etc/ssl/cert.pem (system)"},
	}, {
		name:  "SUSE",
		files: []string{"/var/lib/ca-certificates/ca-bundle.pem"},
		dirs:  []string{"/var/lib/ca-certificates/pem"},
		links: map[string]string{
			"/etc/ssl/ca-bundle.pem": "/var/lib/ca-certificates/ca-bundle.pem",
			"/etc/ssl/certs":         "/var/lib/ca-certificates/pem"},
		store: []string{"/etc/ssl/ca-bundle.pem (system); tried: ",
			"/etc/ssl/certs (system)"},
	}, {
		name:  "SUSE without links in /etc",
		files: []string{"/var/lib/ca-certificates/ca-bundle.pem"},
		store: []string{"/var/lib/ca-certificates/ca-bundle.pem (system); tried: "},
	},
}

// In each layout, tlsd finds the store. It trusts the CA of this store, and no other CA. Both the
// error of a handshake and tls.Info name the store.
func TestTheStoreOfEachSystemIsFound(t *testing.T) {
	t.Parallel()
	mayMount(t)
	w := newWorld(t)
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := l.spec(t, w).daemon(t).Dial(t)
			accepts(t, s, w.good)
			err := shake(t, s, w.wrong)
			refused(t, err, "(system)")
			found := ""
			for _, store := range l.store {
				if found == "" && err != nil &&
					strings.Contains(err.Error(), "trust store: "+store) {
					found = store
				}
			}
			if found == "" {
				t.Errorf("the handshake fails with %v; want one of the texts %q",
					err, l.store)
			}
			info, err := s.Info(testkit.Bounded(t))
			testkit.Must(t, err)
			if tr := info.Trust; tr.Certificates == 0 ||
				!strings.HasPrefix(found, tr.File+tr.Dir) ||
				(len(tr.Empty) > 0) != strings.Contains(found, "tried") {
				t.Errorf("tls.Info says %+v; want the store that the error names: "+
					"%s", tr, found)
			}
		})
	}
}

// If there is no store at all, the error names the places that were tried.
func TestWithoutAStoreTheErrorSaysWhatWasTried(t *testing.T) {
	t.Parallel()
	mayMount(t)
	w := newWorld(t)
	s := layout{}.spec(t, w).daemon(t).Dial(t)
	refuses(t, s, w.good, "none found on this system; tried: ",
		"/etc/ssl/certs/ca-certificates.crt does not exist",
		"/etc/pki/tls/certs/ca-bundle.crt does not exist",
		"/etc/ssl/ca-bundle.pem does not exist", "/etc/ssl/cert.pem does not exist",
		"/etc/ssl/certs does not exist")
	testkit.Must(t, s.SetCaBundle(testkit.Bounded(t), w.ca.File))
	accepts(t, s, w.good)
}

// enterEnv is the variable that makes the test binary enter a root (see the type root), and execute
// a command there. The variable's value describes the root, as JSON.
const enterEnv = "TLSD_TEST_ROOT"

// A root is a view of the file system for a daemon. Where systems keep certificates, it has these
// files and links in place of the machine's.
type root struct {
	Files map[string]string // path to content
	Links map[string]string
}

// spec returns the root that has a layout's files.
func (l layout) spec(t *testing.T, w *world) root {
	t.Helper()
	r := root{Files: map[string]string{}, Links: l.links}
	for _, file := range l.files {
		r.Files[file] = "# Test CA\n" + string(w.ca.PEM())
	}
	for _, dir := range l.dirs {
		r.Files[filepath.Join(dir, hashOf(t, w.ca.File)+".0")] = string(w.ca.PEM())
	}
	return r
}

// hashOf returns the name that a certificate has in a directory, without the suffix
// (openssl-rehash(1)).
func hashOf(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.CommandContext(testkit.Bounded(t), "openssl", "x509", "-hash", "-noout",
		"-in",
		file).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl x509 -hash: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// daemon starts a tlsd that sees the root.
func (r root) daemon(t *testing.T) *testd.Daemon {
	t.Helper()
	spec, err := json.Marshal(r)
	testkit.Must(t, err)
	self, err := os.Executable()
	testkit.Must(t, err)
	return testd.StartWith(t,
		testd.Options{Under: []string{self}, Env: []string{enterEnv + "=" + string(spec)}})
}

// mayMount skips the test if it is not run by root, or if nothing can be mounted. In the second
// case, the test fails under make test.
func mayMount(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	self, err := os.Executable()
	testkit.Must(t, err)
	cmd := exec.CommandContext(testkit.Bounded(t), self, self, "-test.run=^$")
	cmd.Env = append(os.Environ(), enterEnv+"={}")
	if out, err := cmd.CombinedOutput(); err != nil {
		testkit.Missing(t, "mount namespaces are not permitted: %v: %s", err, out)
	}
}

// covered has the directories where systems keep certificates, and where libcrypto looks for them.
var covered = []string{"/etc", "/var/lib", "/usr/lib/ssl", "/usr/local/ssl"}

// kept has the files in covered directories that a daemon needs.
var kept = []string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
	"/etc/ld.so.cache"}

// enter makes the root in a new mount namespace, and executes the command there. It does not
// return.
func enter(spec string, command []string) {
	runtime.LockOSThread() // makeRoot moves only its thread; Exec must be on this thread
	err := makeRoot(spec)
	if err == nil {
		os.Unsetenv(enterEnv)
		err = syscall.Exec(command[0], command, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "entering the root:", err)
	os.Exit(1)
}

// makeRoot moves this thread into a new mount namespace. There it mounts an empty tmpfs over each
// directory in covered, and makes the files of the root in them.
func makeRoot(spec string) error {
	r := root{}
	if err := json.Unmarshal([]byte(spec), &r); err != nil {
		return err
	}
	if r.Files == nil {
		r.Files = map[string]string{}
	}
	for _, file := range kept {
		if data, err := os.ReadFile(file); err == nil {
			r.Files[file] = string(data)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	var there []string
	for _, dir := range covered {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue // this machine has nothing there to cover
		}
		there = append(there, dir+"/")
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("covering %s: %w", dir, err)
		}
	}
	isCovered := func(path string) bool {
		return slices.ContainsFunc(there, func(dir string) bool {
			return strings.HasPrefix(path, dir)
		})
	}
	for path, content := range r.Files {
		if !isCovered(path) {
			return fmt.Errorf("%s would be written to this machine", path)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for path, target := range r.Links {
		if !isCovered(path) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return nil
}
