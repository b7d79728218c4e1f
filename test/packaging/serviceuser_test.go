//go:build systemd

package packaging

import (
	"strings"
	"testing"
)

// With a service user, callers are served with that user's rights. The socket is still root's, so
// that each caller's plugin talks to it.
func TestTheServiceRunsAsAUserOfItsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "allow-uid = ['alice']\n")
	m.write("/etc/systemd/system/tlsd.service.d/user.conf", "root", "0644", "[Service]\nDynamicUser=yes\nCapabilityBoundingSet=\nEnvironment=TLSD_CONFIG=/etc/tlsd/tlsd.toml\n")
	m.run("root", "systemctl", "daemon-reload")
	m.run("root", "systemctl", "start", "tlsd.socket")
	m.expect("openssl\n", "alice", "tlsshim", "call", "Backend")
	if info := m.run("alice", "tlsshim", "call", "Info"); !allOn(info) {
		t.Errorf("the unit takes something from the workers' confinement: %s", info)
	}
	for _, user := range []string{"bob", "root"} {
		if out := m.fails(user, "tlsshim", "call", "Backend"); !strings.Contains(out, "may not use this tlsd") {
			t.Errorf("%s: %s", user, out)
		}
	}
	m.write(alices+"/key.pem", "alice", "0600", "secret")
	m.run("root", "chmod", "0700", alices)
	if out := m.fails("alice", "tlsshim", "call", "SetCaBundle", alices+"/key.pem"); !strings.Contains(out, "ermission denied") {
		t.Errorf("alice's file, by another user's worker: %s", out)
	}
}
