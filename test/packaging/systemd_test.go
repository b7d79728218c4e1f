//go:build systemd

package packaging

import (
	"os"
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// These tests run the units under a real systemd, as make install installs them.

// mostExposed is the highest score of systemd-analyze security that the unit may have, in tenths.
// systemd's scale goes from 0 (safe) to 10.
const mostExposed = "30"

// alices is the home folder of alice.
const alices = "/home" + "/alice"

func newMachine(t *testing.T) *machine {
	t.Helper()
	dest := t.TempDir()
	install(t, "install", dest, "PREFIX=/usr")
	return boot(t, "/", dest)
}

// systemd-analyze finds no mistake in the units, and gives tlsd.service at most the score
// mostExposed.
func TestTheUnitsArePlainToSystemd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, flag := range []string{"--system", "--user"} {
		out := m.run("root", "env", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "verify",
			"--man=no", "--recursive-errors=no", flag, "tlsd.service", "tlsd.socket")
		if out != "" {
			t.Errorf("systemd-analyze verify %s finds mistakes: %s", flag, out)
		}
	}
	m.run("root", "systemd-analyze", "security", "--no-pager", "--threshold="+mostExposed,
		"tlsd.service")
}

// The first call starts the service. It serves root and the users in allow-uid, each with the
// user's own rights, and refuses other users. It also reloads, restarts and stops as it must.
func TestTheServiceServesRootAndTwoUsers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "allow-uid = ['alice', 'bob']\n")
	m.run("root", "systemctl", "start", "tlsd.socket")
	m.expect("inactive", "root", "sh", "-c", "systemctl is-active tlsd.service || true")
	for _, user := range []string{"root", "alice", "bob"} {
		m.expect("openssl\n", user, "tlsshim", "call", "Backend")
		if info := m.run(user, "tlsshim", "call", "Info"); !allOn(info) {
			t.Errorf("under the unit, not every confinement of %s's worker is on: %s",
				user, info)
		}
	}
	m.expect("may not use this tlsd", "root", "sh", "-c", "runuser -u nobody -- tlsshim call "+
		"Backend 2>&1 || true")
	talk(t, m)

	// A worker has its caller's rights: bob's worker cannot read alice's key.
	if out := m.fails("bob", "tlsshim", "call", "NewServerContext", alices+"/cert.pem",
		alices+"/key.pem"); !strings.Contains(out, "ermission denied") {
		t.Errorf("bob's call with alice's key prints %s; want \"permission denied\"", out)
	}

	// root's worker can read alice's key.
	m.expect("1\n", "root", "tlsshim", "call", "NewServerContext", alices+"/cert.pem",
		alices+"/key.pem")

	// tlsd refuses a reload with a bad setting, and goes on with the old settings.
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "allow-uids = ['alice']\n")
	if out := m.fails("root", "systemctl", "reload", "tlsd"); !strings.Contains(out, "failed") {
		t.Errorf("systemctl reload with a bad setting prints %s; want \"failed\"", out)
	}
	m.expect("allow-uids is not known; did you mean allow-uid?", "root", "journalctl", "-u",
		"tlsd", "--no-pager", "-o", "cat")
	m.expect("openssl\n", "bob", "tlsshim", "call", "Backend")
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "allow-uid = ['alice']\n")
	m.run("root", "systemctl", "reload", "tlsd")
	m.until(`restart it to use them settings=["allow-uid"]`, "journalctl", "-u", "tlsd",
		"--no-pager", "-o", "cat")
	journal(t, m)
	m.run("root", "systemctl", "restart", "tlsd.service")
	m.fails("bob", "tlsshim", "call", "Backend")
	m.expect("openssl\n", "alice", "tlsshim", "call", "Backend")
	// The unit makes the folder of the admin socket, which only root may use.
	m.expect("\nhealthy: tlsd ", "root", "sh", "-c", "echo; tlsshim health")
	m.fails("alice", "tlsshim", "health")

	m.run("root", "systemctl", "stop", "tlsd.service", "tlsd.socket")
	m.expect("inactive", "root", "sh", "-c", "systemctl is-active tlsd.service || true")
	m.fails("root", "test", "-e", "/run/tlsd.sock")
}

// journal checks that journalctl finds the service's messages so far, by priority and by field. The
// numbers of the sessions follow from the calls of the test above.
func journal(t *testing.T, m *machine) {
	t.Helper()
	ask := func(match ...string) string {
		return m.run("root", append([]string{"journalctl", "--no-pager", "-o", "cat",
			"-u", "tlsd"}, match...)...)
	}
	for _, q := range []struct {
		match       []string
		want, never string
	}{
		{[]string{"-p", "warning"}, "restart it to use them", "session started"},
		{[]string{"-p", "warning"}, `warning="it expires in less than 14 days"`,
			"handshake"},
		{[]string{"-p", "notice", "TLSD_LOGGER=audit"}, "audit: denied uid=65534",
			"session"},
		{[]string{"TLSD_UID=5002"}, "session started session=5 uid=5002", "uid=5001"},
		{[]string{"SESSION=1"}, "session ended session=1 uid=0", "session=2"},
		{[]string{"SESSION=8", "TLSD_LOGGER=worker"}, "worker: handshake worker=",
			"started"},
	} {
		if out := ask(q.match...); !strings.Contains(out, q.want) ||
			strings.Contains(out, q.never) {
			t.Errorf("journalctl %v prints %s; want %q and not %q", q.match, out,
				q.want, q.never)
		}
	}
	for line := range strings.Lines(ask("SESSION=1")) {
		if !strings.Contains(line, " session=1 ") {
			t.Errorf("journalctl SESSION=1 prints a line of another session: %s", line)
		}
	}
}

// talk checks that bob can talk TLS with a server of alice. Only alice can read the server's key.
func talk(t *testing.T, m *machine) {
	t.Helper()
	ca := testcert.NewCA(t, "test")
	cert := ca.Localhost(t)
	m.write(alices+"/cert.pem", "alice", "0644", readFile(t, cert.CertFile))
	m.write(alices+"/key.pem", "alice", "0600", readFile(t, cert.KeyFile))
	m.write("/tmp/ca.pem", "bob", "0600", readFile(t, ca.File))
	m.run("root", "chmod", "0700", alices)
	server := m.command("alice", "tlsshim", "--timeout", testkit.Patience.String(), "call",
		"NewServerContext", alices+"/cert.pem", alices+"/key.pem",
		"--", "Accept", "1", "127.0.0.1", "4433", "--", "Write", "2", "good day\n", "--",
		"Close", "2")
	var out strings.Builder
	server.Stdout, server.Stderr = &out, &out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	m.until(" 0A ", "grep", ":1151 ", "/proc/net/tcp") // port 4433 listens
	m.expect("good day\n", "bob", "tlsshim", "call", "SetCaBundle", "/tmp/ca.pem", "--",
		"NewClient", "localhost", "4433", "--", "Handshake", "1", "--", "Read", "1", "100")
	if err := server.Wait(); err != nil {
		t.Errorf("alice's server fails: %v\n%s", err, &out)
	}
}

// The unit makes a folder for the audit log. Only root can read the log, even after a rotation.
func TestTheServiceHasAFolderForItsAuditLog(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const file = "/var/log/tlsd/audit.log"
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "audit-log = '"+file+"'\n")
	m.run("root", "systemctl", "start", "tlsd.service")
	m.fails("root", "runuser", "-u", "nobody", "--", "tlsshim", "call", "Backend")
	m.until(`"msg":"denied","uid":65534`, "cat", file)
	m.expect("600 root\n", "root", "stat", "-c", "%a %U", file)
	m.run("root", "mv", file, file+".1")
	m.run("root", "systemctl", "reload", "tlsd.service")
	m.until("600 root\n", "stat", "-c", "%a %U", file)
	m.fails("bob", "cat", file)
}

// If the settings are bad, the service fails with a reason, and systemd does not restart it.
func TestBadSettingsStopTheServiceAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "spares = 3\n")
	m.fails("root", "systemctl", "start", "tlsd.service")
	m.expect("NRestarts=0\nExecMainStatus=2\n", "root", "systemctl", "show", "-p",
		"NRestarts,ExecMainStatus", "tlsd.service")
	m.expect("spares is not known; did you mean spare?", "root", "journalctl", "-u", "tlsd",
		"--no-pager", "-o", "cat")
}

// The user units give a user a tlsd of their own. Even root's calls do not trust it, because
// another user runs it.
func TestAUserHasATlsdOfTheirOwn(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/lib/systemd/system/user@.service"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	m := newMachine(t)
	m.run("root", "systemctl", "start", "user@5001.service")
	as := func(args ...string) []string {
		return append([]string{"env", "XDG_RUNTIME_DIR=/run/user/5001"}, args...)
	}
	m.run("alice", as("systemctl", "--user", "start", "tlsd.socket")...)
	m.expect("openssl\n", "alice", as("tlsshim", "call", "Backend")...)
	m.expect("active\n", "alice", as("systemctl", "--user", "is-active", "tlsd.service")...)
	if info := m.run("alice", as("tlsshim", "call", "Info")...); !allOn(info) {
		t.Errorf("under the unit, not every confinement of the worker is on: %s", info)
	}
	m.expect("user 5001 runs the tlsd there", "root", "sh", "-c",
		"TLSD_SOCKET=/run/user/5001/tlsd.sock tlsshim call Backend 2>&1 || true")
	m.run("alice", as("systemctl", "--user", "stop", "tlsd.service", "tlsd.socket")...)
}

// ask is a Python script that prints the plugin's backend. If the backend is "stub", because there
// is no daemon, the script also prints the reason.
const ask = `import ctypes
plugin = ctypes.CDLL("/usr/lib/tlsd/TlsPlugin.so")
text = ctypes.create_string_buffer(4096)
plugin.tls_Backend(text, ctypes.c_size_t(4096))
print(text.value.decode())
if text.value == b"stub":
    plugin.tls_NewClient(b"localhost", 1)
    plugin.tls_LastError(text, ctypes.c_size_t(4096))
    print(text.value.decode())
`

// A daemon can run as a user of its own (DynamicUser). The plugin talks to it only if client.conf
// has this user in trusted-users. While the daemon is down, the plugin starts no private daemon.
func TestAUserOfItsOwnMayRunTheService(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/systemd/system/own.service", "root", "0644", `[Service]
Type=notify
DynamicUser=yes
User=tlsown
RuntimeDirectory=tlsd
ExecStart=/usr/bin/tlsd --socket /run/tlsd/tlsd.sock --allow-uid alice
`)
	m.write("/tmp/ask.py", "root", "0644", ask)
	plugin := []string{"env", "TLSD_EXE=/usr/bin/tlsd", "python3", "/tmp/ask.py"}
	m.run("root", "systemctl", "daemon-reload")
	m.run("root", "systemctl", "start", "own.service")
	for _, refused := range []struct {
		command []string
		says    string
	}{
		{plugin, "and not in trusted-users of /etc/tlsd/client.conf"},
		{[]string{"sh", "-c", "tlsshim status 2>&1 || true"},
			"and not in trusted-users of /etc/tlsd/client.conf"},
	} {
		if out := m.run("alice", refused.command...); !strings.Contains(out, refused.says) {
			t.Errorf("without client.conf %v prints %s; want %q", refused.command, out,
				refused.says)
		}
	}
	m.write("/etc/tlsd/client.conf", "root", "0644",
		"socket = /run/tlsd/tlsd.sock\ntrusted-users = tlsown\n")
	m.expect("openssl\n", "alice", plugin...)
	m.expect("at /run/tlsd/tlsd.sock", "alice", "tlsshim", "status")
	m.run("root", "systemctl", "stop", "own.service")
	m.expect("names the system's socket /run/tlsd/tlsd.sock; the system's tlsd is down",
		"alice", plugin...)
	m.expect("the system's tlsd is down", "alice", "sh", "-c", "tlsshim doctor || true")
}

// If tlsd.service runs as a user of its own, its workers have this user's rights. Callers need no
// trusted-users, because systemd makes the socket, which still belongs to root.
func TestTheServiceRunsAsAUserOfItsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/tlsd/tlsd.toml", "root", "0644", "allow-uid = ['alice']\n")
	m.write("/etc/systemd/system/tlsd.service.d/user.conf", "root", "0644",
		"[Service]\nDynamicUser=yes\nCapabilityBoundingSet=\n"+
			"Environment=TLSD_CONFIG=/etc/tlsd/tlsd.toml\n")
	m.run("root", "systemctl", "daemon-reload")
	m.run("root", "systemctl", "start", "tlsd.socket")
	m.expect("openssl\n", "alice", "tlsshim", "call", "Backend")
	if info := m.run("alice", "tlsshim", "call", "Info"); !allOn(info) {
		t.Errorf("under the unit, not every confinement of the worker is on: %s", info)
	}
	for _, user := range []string{"bob", "root"} {
		if out := m.fails(user, "tlsshim", "call", "Backend"); !strings.Contains(out,
			"may not use this tlsd") {
			t.Errorf("a call of %s prints %s; want \"may not use this tlsd\"", user,
				out)
		}
	}
	m.write(alices+"/key.pem", "alice", "0600", "secret")
	m.run("root", "chmod", "0700", alices)
	if out := m.fails("alice", "tlsshim", "call", "SetCaBundle",
		alices+"/key.pem"); !strings.Contains(out, "ermission denied") {
		t.Errorf("a worker with the rights of the service's user opens a file of alice's: "+
			"tlsshim prints %s; want \"permission denied\"", out)
	}
}
