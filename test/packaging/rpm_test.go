//go:build packages

package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// rpm itself installs the .rpm, but in a Debian, under a real systemd. So the test does not show
// that the programs run with the C library and the OpenSSL of a distribution that uses rpm, nor
// that such a distribution's SELinux policy allows tlsd's work. Debian has what the .rpm requires,
// but rpm does not know that. So the test installs a package (standIn) that tells rpm what Debian
// has.

// rpmlint unpacks the .rpm with "cpio -id". In an .rpm of nfpm, all names begin with "/". So cpio
// would write the files into the folders of this machine, and rpmlint would not find them. The test
// makes rpmlint use another cpio, which writes below the current folder only. If rpmlint does not
// find the files, it complains, and the test fails.
func rpmlint(t *testing.T, rpm string) {
	need(t, "rpmlint", "rpm2cpio", "cpio")
	cpio, err := exec.LookPath("cpio")
	testkit.Must(t, err)
	dir := t.TempDir()
	testkit.Must(t, os.WriteFile(dir+"/cpio", []byte("#!/bin/sh\nexec "+cpio+
		" --no-absolute-filenames \"$@\"\n"), 0o755))
	cmd := exec.Command("rpmlint", "-c", top+"/packaging/rpmlint.toml", "--strict", rpm)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	succeed(t, cmd)
}

// compareRpm checks that the .rpm has the same files and modes as the .deb, except for the files
// that only Debian wants.
func compareRpm(t *testing.T, rpm, deb string) {
	need(t, "rpm", "rpm2cpio", "cpio", "dpkg-deb")
	root, other := t.TempDir(), t.TempDir()
	succeed(t, exec.Command("sh", "-c",
		`rpm2cpio "$1" | (cd "$2" && cpio -idm --quiet --no-absolute-filenames)`,
		"sh", rpm, root))
	succeed(t, exec.Command("dpkg-deb", "-x", deb, other))
	got, want := filesBelow(t, root), filesBelow(t, other)
	for _, name := range []string{"usr/share/lintian/overrides/tlsd",
		"usr/share/doc/tlsd/changelog.Debian.gz"} {
		if _, ok := want[name]; !ok {
			t.Errorf("the .deb lacks %s", name)
		}
		delete(want, name)
	}
	const licence = "usr/share/doc/tlsd/copyright"
	want["usr/share/licenses/tlsd/copyright"] = want[licence]
	delete(want, licence)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: mode %v in the .rpm, %v in the .deb", name,
				got[name], want[name])
		}
	}
	if len(got) != len(want) || len(got) == 0 {
		t.Errorf("the .rpm has %d files, want %d as in the .deb", len(got), len(want))
	}
	succeed(t, exec.Command("rpm", "--checksig", "--nosignature", rpm))
	if config := succeed(t, exec.Command("rpm", "-qpc",
		rpm)); config != "/etc/tlsd/tlsd.toml\n" {
		t.Errorf("the .rpm has the configuration files %q, want only tlsd.toml", config)
	}
}

// standIn describes a package without files. It provides, by rpm's names, what the .rpm requires.
const standIn = `Name: debians-own
Version: %d
Release: 1
Summary: What Debian has
License: none
BuildArch: noarch
%s
%%description
What Debian has.
%%files
`

// lifeOfRpm installs the .rpm, uses it, upgrades it during a session, and removes it.
func lifeOfRpm(t *testing.T, old, renewed string) {
	m := withFiles(t, map[string]string{"old.rpm": old, "new.rpm": renewed})
	before := leftOver(m)
	// In Debian 12, rpm needs --force-debian, or it warns that Debian's tool is dpkg. In Debian
	// 13, rpm does not know this option.
	command := []string{"rpm"}
	if m.command("root", "rpm", "--force-debian", "--version").Run() == nil {
		command = append(command, "--force-debian")
	}
	rpm := func(args ...string) []string {
		return slices.Concat(command, args)
	}

	// The .rpm requires glibc and libssl. rpm installs it only if both are provided.
	glibc := strings.Fields(m.run("root", "getconf", "GNU_LIBC_VERSION"))[1]
	provides := ""
	for i, needed := range []struct{ lacks, has string }{
		{"glibc >= 2.", "glibc = " + glibc},
		{"libssl.so.3()(64bit)", "libssl.so.3()(64bit)"},
	} {
		if out := m.fails("root", rpm("-i", "/old.rpm")...); !strings.Contains(out,
			needed.lacks) {
			t.Errorf("rpm's refusal does not name the missing %s: %s", needed.lacks,
				out)
		}
		provides += "Provides: " + needed.has + "\n"
		m.write("/tmp/own.spec", "root", "0644", fmt.Sprintf(standIn, i, provides))
		m.run("root", "rpmbuild", "-bb", "--define", "_rpmdir /tmp", "/tmp/own.spec")
		m.run("root", rpm("-U",
			fmt.Sprintf("/tmp/noarch/debians-own-%d-1.noarch.rpm", i))...)
	}

	// systemd's presets enable the socket. It starts only at the next boot, so the test starts
	// it.
	m.run("root", rpm("-i", "/old.rpm")...)
	intact(m)
	m.expect("enabled", "root", "systemctl", "is-enabled", "tlsd.socket")
	m.expect("tlsd 0.1.0 (go1.", "root", "tlsd", "--version")
	m.run("root", "systemctl", "start", "tlsd.socket")
	m.expect("openssl\n", "root", "/domhost", "/script.dom")

	upgrade(m, rpm("-U", "/new.rpm")...)
	m.expect("tlsd-0.1.1-1.x86_64\n", "root", "rpm", "-q", "tlsd")
	if out := m.fails("root", "rpm", "-V", "tlsd"); strings.Count(out, "\n") != 1 ||
		!strings.Contains(out, "  c /etc/tlsd/tlsd.toml\n") {
		t.Errorf("after the administrator has changed the settings, rpm -V prints\n%s"+
			"want one line, about tlsd.toml", out)
	}

	m.run("root", rpm("-e", "tlsd")...)
	m.fails("root", "test", "-e", "/run/tlsd.sock")
	m.expect("not-found", "root", "sh", "-c", "systemctl show -p LoadState --value "+
		"tlsd.service tlsd.socket; true")
	m.expect("# mine", "root", "cat", "/etc/tlsd/tlsd.toml.rpmsave")
	m.run("root", "rm", "-r", "/etc/tlsd")
	if left := leftOver(m); left != before {
		t.Errorf("after rpm -e there are\n%s\nwant, as before the installation\n%s", left,
			before)
	}

	// If a preset disables all units, the socket is not enabled. If nobody has changed the
	// settings, rpm -e leaves no file.
	m.write("/etc/systemd/system-preset/10-test.preset", "root", "0644", "disable *\n")
	m.run("root", rpm("-i", "/new.rpm")...)
	m.expect("disabled", "root", "sh", "-c", "systemctl is-enabled tlsd.socket || true")
	intact(m)
	m.run("root", rpm("-e", "tlsd")...)
	if left := leftOver(m); left != before {
		t.Errorf("after rpm -e there are\n%s\nwant, as before the installation\n%s", left,
			before)
	}
}

// intact checks that each installed file is as in the package: content, mode, owner and group. All
// files must belong to root.
func intact(m *machine) {
	m.t.Helper()
	if out := m.run("root", "rpm", "-V", "tlsd"); out != "" {
		m.t.Errorf("rpm -V finds files that differ from the package: %s", out)
	}
	files := m.run("root", "rpm", "-q", "--qf",
		"[%{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]", "tlsd")
	for line := range strings.Lines(files) {
		if !strings.HasPrefix(line, "root:root /") {
			m.t.Errorf("a file does not belong to root: %s", line)
		}
	}
	if strings.Count(files, "\n") < len(installed) {
		m.t.Errorf("the .rpm has fewer files than make install:\n%s", files)
	}
}
