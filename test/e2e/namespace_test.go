package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// insideEnv is set in a test binary that has been run again inside namespaces.
const insideEnv = "E2E_INSIDE"

// inNamespaces says whether the test runs in network and mount namespaces of its own. There it may
// listen on any port of loopback, and mount over any file. If not, inNamespaces runs the test
// binary again in such namespaces, for this test alone, and fails the test if that run fails. Then
// the caller must return.
//
// Where namespaces are not permitted, as in many containers, the test is skipped. As root under
// make test that is a failure.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		return true
	}
	args := []string{"--net", "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--map-root-user")
	}
	if out, err := exec.Command("unshare",
		append(args, "ip", "link", "set", "lo", "up")...).CombinedOutput(); err != nil {
		reason := "unshare " + strings.Join(args, " ") + ": " + err.Error() + ": " +
			strings.TrimSpace(string(out))
		if os.Getenv("TLSD_TEST_STRICT") == "1" && os.Getuid() == 0 {
			t.Fatal("this needs namespaces: " + reason)
		}
		t.Skip("namespaces are not permitted: " + reason)
	}
	testd.Exe(t, "tlsd") // so that it is built inside at once
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const minutes = 3 * testkit.Patience // for the whole test and the build of its programs
	args = append(args, "sh", "-c", `ip link set lo up && exec "$@"`, "sh",
		self, "-test.v", "-test.run=^"+t.Name()+"$", "-test.timeout="+minutes.String())
	p := start(t, program{name: "unshare", args: args, env: []string{insideEnv + "=1"}})
	e := p.waitFor(t, minutes+testkit.Patience)
	if e.status != 0 || !strings.Contains(e.stdout, "--- PASS: "+t.Name()+" ") {
		t.Error("failed in the namespaces")
	} else if testing.Verbose() {
		t.Logf("in the namespaces:\n%s", e.stdout)
	}
	return false
}

// mount mounts until the test ends, and only inside the namespaces.
func mount(t *testing.T, source, target, kind string, flags uintptr) {
	t.Helper()
	if os.Getenv(insideEnv) == "" {
		t.Fatal("a mount outside of the namespaces")
	}
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		t.Fatalf("mount over %s: %v", target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// nameExample makes example.com a name of this machine. It puts a CA file where the reference's
// example for SetCaBundle expects it.
func nameExample(t *testing.T, caPEM string) {
	t.Helper()
	for file, text := range map[string]string{
		"/etc/hosts":         "127.0.0.1 localhost example.com\n",
		"/etc/nsswitch.conf": "hosts: files\n",
		"/etc/resolv.conf":   "nameserver 127.0.0.1\n", // where nobody answers
	} {
		if exists(file) {
			mount(t, writeFile(t, filepath.Join(t.TempDir(), "file"), text), file, "",
				unix.MS_BIND)
		}
	}
	mount(t, "tmpfs", "/etc/ssl/certs", "tmpfs", 0)
	writeFile(t, "/etc/ssl/certs/ca-bundle.crt", caPEM)
}
