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

// insideEnv is a variable that is set if the test binary runs in namespaces of its own.
const insideEnv = "E2E_INSIDE"

// inNamespaces returns true if the test runs in network and mount namespaces of its own. There the
// test may listen on any port of loopback, and mount over any file.
//
// Otherwise inNamespaces runs the same test again, in a new process with such namespaces. If the
// new process fails, inNamespaces fails the test. It returns false, and the caller must return at
// once.
//
// Many containers do not permit namespaces. There the test fails if root runs it with "make test".
// For other users, and with plain go test, it is skipped.
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
	// The new process takes the programs of this one. It cannot build them, because Go may need
	// the network for that, for example to load a module.
	bin := filepath.Dir(testd.Exe(t, "tlsd"))
	for _, program := range []string{testd.Plugin(t), testd.Domhost(t)} {
		if filepath.Dir(program) != bin {
			t.Fatalf("%s is not in the folder %s", program, bin)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const minutes = 3 * testkit.Patience // for the whole test
	args = append(args, "sh", "-c", `ip link set lo up && exec "$@"`, "sh",
		self, "-test.v", "-test.run=^"+t.Name()+"$", "-test.timeout="+minutes.String())
	p := start(t, program{name: "unshare", args: args,
		env: []string{insideEnv + "=1", "TLSD_TEST_BIN=" + bin}})
	e := p.waitFor(t, minutes+testkit.Patience)
	if e.status != 0 || !strings.Contains(e.stdout, "--- PASS: "+t.Name()+" ") {
		t.Error("the test has failed in its namespaces; the output of unshare in this " +
			"log has the failure")
	} else if testing.Verbose() {
		t.Logf("in the namespaces:\n%s", e.stdout)
	}
	return false
}

// mount mounts a file system or file until the test ends. The test must run in namespaces.
func mount(t *testing.T, source, target, kind string, flags uintptr) {
	t.Helper()
	if os.Getenv(insideEnv) == "" {
		t.Fatal("this test would mount outside of namespaces of its own")
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
