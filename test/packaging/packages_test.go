//go:build packages

package packaging

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// The packages as make packages builds them. The .deb is installed in a Debian of its own, under a
// real systemd (see boot). debootstrap makes the root once, and the user's cache folder keeps it.
// The .rpm is only examined and unpacked, because Debian's mirrors have no distribution that uses
// it.

// build builds both packages of a version into a folder.
func build(t *testing.T, version string) (deb, rpm string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("sh", "packaging/packages.sh", dir)
	cmd.Dir = top
	cmd.Env = append(cmd.Environ(), "VERSION="+version, "MAKEFLAGS=")
	succeed(t, cmd)
	debs, _ := filepath.Glob(dir + "/*.deb")
	rpms, _ := filepath.Glob(dir + "/*.rpm")
	if len(debs) != 1 || len(rpms) != 1 {
		t.Fatalf("there are %v and %v", debs, rpms)
	}
	return debs[0], rpms[0]
}

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
}

// These tests share the folder in which packages are built, so they run one after another.

func TestPackages(t *testing.T) {
	old, rpm := build(t, "0.1.0")
	again, _ := build(t, "0.1.0")
	if readFile(t, old) != readFile(t, again) {
		t.Error("two builds of the .deb differ")
	}
	renewed, _ := build(t, "0.1.1")
	t.Run("Lintian", func(t *testing.T) { lintian(t, old) })
	t.Run("Rpm", func(t *testing.T) { lookAtRpm(t, rpm, old) })
	t.Run("Life", func(t *testing.T) { lifeOfDeb(t, old, renewed) })
}

func lintian(t *testing.T, deb string) {
	need(t, "lintian")
	succeed(t, exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", deb))
}

// lookAtRpm compares the files of the .rpm with those of the .deb, and runs the .rpm's programs.
func lookAtRpm(t *testing.T, rpm, deb string) {
	need(t, "rpm", "rpm2cpio", "cpio", "dpkg-deb")
	root, other := t.TempDir(), t.TempDir()
	succeed(t, exec.Command("sh", "-c",
		`rpm2cpio "$1" | (cd "$2" && cpio -idm --quiet --no-absolute-filenames)`,
		"sh", rpm, root))
	succeed(t, exec.Command("dpkg-deb", "-x", deb, other))
	got, want := filesBelow(t, root), filesBelow(t, other)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: mode %v in the .rpm, %v in the .deb", name,
				got[name], want[name])
		}
	}
	if len(got) != len(want) || len(got) == 0 {
		t.Errorf("the .rpm has %d files, the .deb %d", len(got), len(want))
	}
	succeed(t, exec.Command("rpm", "--checksig", "--nosignature", rpm))
	if config := succeed(t, exec.Command("rpm", "-qpc",
		rpm)); config != "/etc/tlsd/tlsd.toml\n" {
		t.Errorf("configuration files: %q", config)
	}
	if out := succeed(t, exec.Command(filepath.Join(root, "usr/bin/tlsd"),
		"--version")); !strings.HasPrefix(out, "tlsd 0.1.0 (go1.") {
		t.Errorf("tlsd --version: %q", out)
	}
}

// debian returns a root of the Debian release of this machine.
func debian(t *testing.T) string {
	t.Helper()
	need(t, "debootstrap", "dpkg")
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)`).FindStringSubmatch(
		readFile(t, "/etc/os-release"))
	if m == nil || !strings.Contains(readFile(t, "/etc/os-release"), "\nID=debian") {
		t.Skip("SKIPPED: this machine runs no release of Debian")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	root := filepath.Join(cache, "tlsd", "debian-"+m[1])
	if _, err := os.Stat(root); err == nil {
		return root
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	unfinished := root + ".unfinished"
	os.RemoveAll(unfinished)
	args := []string{"--variant=minbase",
		"--include=openssl,ca-certificates,systemd,dbus,iproute2", m[1], unfinished}
	if mirror := os.Getenv("TLSD_DEBIAN_MIRROR"); mirror != "" {
		args = append(args, mirror)
	}
	if out, err := exec.Command("debootstrap", args...).CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("SKIPPED: debootstrap makes no Debian: %v: %s", err, lines[len(lines)-1])
	}
	if err := os.Rename(unfinished, root); err != nil {
		t.Fatal(err)
	}
	return root
}

// lifeOfDeb installs, uses, upgrades with an open session, and removes the .deb.
func lifeOfDeb(t *testing.T, old, renewed string) {
	add := t.TempDir()
	for name, deb := range map[string]string{"old.deb": old, "new.deb": renewed} {
		if err := os.WriteFile(filepath.Join(add, name), []byte(readFile(t, deb)),
			0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := boot(t, debian(t), add)
	m.run("root", "dpkg", "-i", "/old.deb")
	m.expect("active", "root", "systemctl", "is-active", "tlsd.socket")
	m.expect("enabled", "root", "systemctl", "is-enabled", "tlsd.socket")
	m.expect("openssl\n", "root", "tlsshim", "call", "Backend")
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "# mine\nallow-uid = ['alice']\n")
	m.run("root", "systemctl", "restart", "tlsd.service")

	s := openSession(m, "alice")
	s.ask("Backend", "openssl")
	m.run("root", "dpkg", "-i", "/new.deb")
	// the old one lets its session finish
	m.until("deactivating", "systemctl", "show", "-p", "ActiveState", "tlsd.service")
	s.ask("Version", "OpenSSL ")
	s.close()
	m.until("tlsd 0.1.1", "runuser", "-u", "alice", "--", "tlsshim", "status")
	m.expect("# mine", "root", "cat", "/etc/tlsd/tlsd.toml")
	m.expect("ActiveState=active\nResult=success\n", "root", "sh", "-c", "systemctl show -p "+
		"ActiveState -p Result tlsd.service | sort")
	m.expect("0 loaded units", "root", "systemctl", "--failed", "--no-pager")

	m.run("root", "dpkg", "-r", "tlsd")
	m.fails("root", "test", "-e", "/run/tlsd.sock")
	m.fails("root", "test", "-e", "/usr/bin/tlsd")
	m.expect("# mine", "root", "cat", "/etc/tlsd/tlsd.toml")
	m.run("root", "dpkg", "-P", "tlsd")
	m.fails("root", "test", "-e", "/etc/tlsd/tlsd.toml")
	m.expect("not-found", "root", "sh", "-c", "systemctl show -p LoadState --value "+
		"tlsd.service tlsd.socket; true")
	if left := m.run("root", "find", "/etc/systemd", "/usr/lib", "-name", "*tlsd*", "-not",
		"-name", "tlsd-test.target"); left != "" {
		t.Errorf("after dpkg -P there are %s", left)
	}
}

// A session that a tlsshim shell keeps open.
type openedSession struct {
	m   *machine
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func openSession(m *machine, user string) *openedSession {
	m.t.Helper()
	s := &openedSession{m: m, cmd: m.command(user, "tlsshim", "shell")}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	hangs := time.AfterFunc(testkit.Patience, func() { s.cmd.Process.Kill() })
	m.t.Cleanup(func() { hangs.Stop(); s.in.Close() })
	return s
}

func (s *openedSession) ask(call, want string) {
	s.m.t.Helper()
	if _, err := io.WriteString(s.in, call+"\n"); err != nil {
		s.m.t.Fatal(err)
	}
	if line, err := s.out.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
		s.m.t.Fatalf("%s: %q, %v; want %q", call, line, err, want)
	}
}

func (s *openedSession) close() {
	s.m.t.Helper()
	s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		s.m.t.Errorf("the session of %v ends with %v", s.cmd.Args, err)
	}
}

// mandoc finds no mistake in the pages. It may not know pages of other packages.
func TestPagesAreGoodMdoc(t *testing.T) {
	need(t, "mandoc")
	pages, err := filepath.Glob(top + "/packaging/man/*.[1-8]")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	out, _ := exec.Command("mandoc",
		append([]string{"-T", "lint"}, pages...)...).CombinedOutput()
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(out)), "\n"),
		func(line string) bool {
			return line == "" || strings.Contains(line,
				"referenced manual not found") ||
				strings.Contains(line, "outdated mandoc.db")
		})
	if len(lines) > 0 {
		t.Errorf("mandoc: %s", strings.Join(lines, "\n"))
	}
}
