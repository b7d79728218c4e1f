//go:build systemd

package packaging

import (
	"strings"
	"testing"

	"tlsd/internal/testcert"
)

// docs/operations.md says which directives the unit must have or must not have, and what happens
// otherwise. Each case changes the unit by a drop-in. Then a user makes a call, which must succeed
// or fail as the document says.
func TestTheUnitNeedsWhatTheManualSays(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	ca := testcert.NewCA(t, "test")
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "allow-uid = ['alice']\n")
	m.write(alices+"/ca.pem", "alice", "0600", readFile(t, ca.File))
	m.write("/tmp/ca.pem", "alice", "0600", readFile(t, ca.File))
	m.run("root", "chmod", "0700", alices)
	for _, tt := range []struct{ name, directives, user, path, want string }{
		{"as it is", "", "alice", "/tmp/ca.pem", "0\n"},
		{"as it is, a home", "", "alice", alices + "/ca.pem", "0\n"},
		{"as it is, root", "", "root", alices + "/ca.pem", "0\n"},
		{"PrivateTmp", "PrivateTmp=yes", "alice", "/tmp/ca.pem",
			"no such file or directory"},
		{"PrivateUsers", "PrivateUsers=yes", "alice", "/tmp/ca.pem",
			"may not use this tlsd"},
		{"ProtectHome", "ProtectHome=yes", "alice", alices + "/ca.pem",
			alices + "/ca.pem: "},
		{"without SETUID", "CapabilityBoundingSet=~CAP_SETUID CAP_SETGID", "alice",
			"/tmp/ca.pem", "setgroups to 1 groups: operation not permitted"},
		{"without DAC_READ_SEARCH", "CapabilityBoundingSet=~CAP_DAC_READ_SEARCH", "root",
			alices + "/ca.pem", "ermission denied"},
	} {
		m.write("/etc/systemd/system/tlsd.service.d/test.conf", "root", "0644",
			"[Service]\n"+tt.directives+"\n")
		m.run("root", "systemctl", "daemon-reload")
		m.try("systemctl", "reset-failed")
		m.run("root", "systemctl", "restart", "tlsd.socket")
		out, err := m.command(tt.user, "tlsshim", "--timeout", "20s", "call", "SetCaBundle",
			tt.path).CombinedOutput()
		if good := tt.want == "0\n"; good != (err == nil) ||
			!strings.Contains(string(out), tt.want) {
			t.Errorf("%s: tlsshim ends with %v, and prints %s; want %q", tt.name, err,
				out, tt.want)
		}
		m.run("root", "systemctl", "stop", "tlsd.service", "tlsd.socket")
	}
	// If the unit forbids the system calls of Landlock and seccomp, workers are less confined,
	// and tls.Info reports that. ~@sandbox is needed for newer releases of systemd, because
	// their @system-service allows these calls.
	m.write("/etc/systemd/system/tlsd.service.d/test.conf", "root", "0644",
		"[Service]\nSystemCallFilter=\nSystemCallFilter=@system-service\n"+
			"SystemCallFilter=~@sandbox\n")
	m.run("root", "systemctl", "daemon-reload")
	m.run("root", "systemctl", "start", "tlsd.socket")
	if info := m.run("alice", "tlsshim", "call", "Info"); allOn(info) {
		t.Errorf("the unit forbids the calls of Landlock and seccomp, but Info reports "+
			"each confinement as on: %s", info)
	}
}
