//go:build packages

package packaging

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// These tests install the packages that make packages builds. Each package gets a Debian of its own
// (see debian), with a real systemd (see boot).

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
		t.Fatalf("packages.sh has made %v and %v, want one .deb and one .rpm", debs, rpms)
	}
	return debs[0], rpms[0]
}

// Two builds of one version give equal packages. The linters find no mistake. Each package can be
// installed, used, upgraded and removed, and leaves nothing. All builds use one folder, so they run
// one after another.
func TestPackages(t *testing.T) {
	old, rpm := build(t, "0.1.0")
	again, rpmAgain := build(t, "0.1.0")
	if readFile(t, old) != readFile(t, again) {
		t.Error("two builds of the .deb differ")
	}
	if readFile(t, rpm) != readFile(t, rpmAgain) {
		t.Error("two builds of the .rpm differ")
	}
	renewed, newRpm := build(t, "0.1.1")
	t.Run("Lintian", func(t *testing.T) { lintian(t, old) })
	t.Run("Rpmlint", func(t *testing.T) { rpmlint(t, rpm) })
	t.Run("RpmIsTheDeb", func(t *testing.T) { compareRpm(t, rpm, old) })
	t.Run("LifeOfDeb", func(t *testing.T) { lifeOfDeb(t, old, renewed) })
	t.Run("LifeOfRpm", func(t *testing.T) { lifeOfRpm(t, rpm, newRpm) })
}

func lintian(t *testing.T, deb string) {
	need(t, "lintian")
	succeed(t, exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", deb))
}

// script is a script that calls the installed plugin.
const script = `plugin "/usr/lib/tlsd/TlsPlugin";
void main() { printf("%s\n", tls.Backend()); }
`

// withFiles boots a machine. Its root folder has the packages, by the names in the map, and also
// domhost and a script that calls the plugin.
func withFiles(t *testing.T, packages map[string]string) *machine {
	t.Helper()
	add := t.TempDir()
	packages["domhost"] = filepath.Join(bin, "domhost")
	for name, from := range packages {
		if err := testd.WriteProgram(filepath.Join(add, name),
			[]byte(readFile(t, from))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(add, "script.dom"), []byte(script),
		0o644); err != nil {
		t.Fatal(err)
	}
	return boot(t, debian(t), add)
}

// upgrade runs a command that upgrades tlsd to 0.1.1, while alice has a session. Her session goes
// on, and the settings stay.
func upgrade(m *machine, command ...string) {
	m.t.Helper()
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "# mine\nallow-uid = ['alice']\n")
	m.run("root", "systemctl", "restart", "tlsd.service")
	m.expect("openssl\n", "alice", "/domhost", "/script.dom")
	s := openSession(m, "alice")
	s.ask("Backend", "openssl")
	m.run("root", command...)
	// The old daemon does not end before alice's session.
	m.until("deactivating", "systemctl", "show", "-p", "ActiveState", "tlsd.service")
	s.ask("Version", "OpenSSL ")
	s.close()
	m.until("tlsd 0.1.1", "runuser", "-u", "alice", "--", "tlsshim", "status")
	m.expect("openssl\n", "alice", "/domhost", "/script.dom")
	m.expect("# mine", "root", "cat", "/etc/tlsd/tlsd.toml")
	m.expect("ActiveState=active\nResult=success\n", "root", "sh", "-c", "systemctl show -p "+
		"ActiveState -p Result tlsd.service | sort")
	m.expect("0 loaded units", "root", "systemctl", "--failed", "--no-pager")
}

// leftOver returns the names of all files in the machine that can be tlsd's.
func leftOver(m *machine) string {
	m.t.Helper()
	return m.run("root", "find", "/etc", "/usr", "/var/lib/systemd", "/run", "-name", "*tls*d*",
		"-not", "-name", "tlsd-test.target", "-not", "-path", "*/old-root/*")
}

// lifeOfDeb installs the .deb, uses it, upgrades it during a session, and removes it.
func lifeOfDeb(t *testing.T, old, renewed string) {
	m := withFiles(t, map[string]string{"old.deb": old, "new.deb": renewed})
	before := leftOver(m)
	m.run("root", "dpkg", "-i", "/old.deb")
	m.expect("active", "root", "systemctl", "is-active", "tlsd.socket")
	m.expect("enabled", "root", "systemctl", "is-enabled", "tlsd.socket")
	m.expect("openssl\n", "root", "/domhost", "/script.dom")
	upgrade(m, "dpkg", "-i", "/new.deb")

	m.run("root", "dpkg", "-r", "tlsd")
	m.fails("root", "test", "-e", "/run/tlsd.sock")
	m.fails("root", "test", "-e", "/usr/bin/tlsd")
	m.expect("# mine", "root", "cat", "/etc/tlsd/tlsd.toml")
	m.run("root", "dpkg", "-P", "tlsd")
	m.fails("root", "test", "-e", "/etc/tlsd/tlsd.toml")
	m.expect("not-found", "root", "sh", "-c", "systemctl show -p LoadState --value "+
		"tlsd.service tlsd.socket; true")
	if left := leftOver(m); left != before {
		t.Errorf("after dpkg -P there are\n%s\nwant, as before the installation\n%s", left,
			before)
	}
}

// An openedSession is a session that a tlsshim shell keeps open.
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
		s.m.t.Fatalf("tlsshim shell answers %s with %q (%v), want %q", call, line, err,
			want)
	}
}

func (s *openedSession) close() {
	s.m.t.Helper()
	s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		s.m.t.Errorf("the session of %v ends with %v", s.cmd.Args, err)
	}
}

// mandoc finds no mistake in the manual pages. A reference to a page that is not installed here is
// no mistake.
func TestPagesAreGoodMdoc(t *testing.T) {
	need(t, "mandoc")
	pages, err := filepath.Glob(top + "/packaging/man/*.[1-8]")
	if err != nil || len(pages) == 0 {
		t.Fatalf("the manual pages are %q, %v; want one or more", pages, err)
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
		t.Errorf("mandoc finds mistakes: %s", strings.Join(lines, "\n"))
	}
}

// fish completes options, methods and commands, and zsh can parse its completions. For bash see
// TestCompletionsComplete.
func TestCompletionsForOtherShells(t *testing.T) {
	need(t, "fish", "zsh")
	for _, tt := range []struct{ program, words, want string }{
		{"tlsd", "--log-l", "--log-level\t"},
		{"tlsshim", "call NewServ", "NewServerContext"},
		{"tlsshim", "do", "doctor\t"},
	} {
		folder := top + "/packaging/completions/"
		got := succeed(t, exec.Command("fish", "--no-config", "-c", "source "+folder+
			tt.program+".fish; complete -C '"+tt.program+" "+tt.words+"'"))
		if !strings.HasPrefix(got, tt.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("fish completes %s %s with %q, want one line that begins with %q",
				tt.program, tt.words, got, tt.want)
		}
		succeed(t, exec.Command("zsh", "-n", folder+"_"+tt.program))
	}
}
