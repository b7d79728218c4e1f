package tlsd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
)

// What code that has taken a worker over, here in the place of libssl, can do.

// escape has the library try, and returns what came of each attempt, and the folder in which it wrote. The certificate's
// files are read by the worker meanwhile.
func escape(t *testing.T, flags ...string) (outcome map[string]syscall.Errno, dir string) {
	t.Helper()
	lib := faultyLibrary(t, "-DESCAPE")
	cert := testcert.NewCA(t, "Test CA").Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"}})
	dir = shortDir(t)
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("there"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log")
	sock := filepath.Join(dir, "s")
	startWith(t, nil, "export LANG="+dir+"; exec 2>"+log+";", append([]string{"--socket", sock, "--libssl", lib, "--log-format", "json"}, flags...)...)
	conn, in, _ := connect(t, sock)
	params, _ := json.Marshal([]string{cert.CertFile, cert.KeyFile})
	if got := exchange(t, conn, in, `{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":`+string(params)+`}`); !strings.Contains(got, `"result":1`) {
		t.Fatal(got)
	}
	want := `"on"`
	if got := exchange(t, conn, in, `{"jsonrpc":"2.0","id":2,"method":"tls.Info"}`); strings.Contains(got, want) == (len(flags) > 0) {
		t.Errorf("tls.Info says %s", got)
	}
	// The worker's line takes its way through the supervisor.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if outcome := reported(string(text)); outcome != nil {
			return outcome, dir
		}
		if time.Now().After(end) {
			t.Fatalf("no report in the log: %s", text)
		}
	}
}

// reported finds what the library has logged, if it is there.
func reported(log string) map[string]syscall.Errno {
	for line := range strings.Lines(log) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil || entry["msg"] != "escape" {
			continue
		}
		outcome := map[string]syscall.Errno{}
		for name, v := range entry {
			if n, ok := v.(float64); ok && name != "worker" {
				outcome[name] = syscall.Errno(n)
			}
		}
		return outcome
	}
	return nil
}

func TestCodeInsideTheLibraryIsConfined(t *testing.T) {
	t.Parallel()
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	landlock := map[string]syscall.Errno{"write": unix.EACCES, "overwrite": unix.EACCES, "remove": unix.EACCES, "mkdir": unix.EACCES, "truncate": unix.EACCES}
	want := map[string]syscall.Errno{
		"read": 0, "tcp": 0, "ownSignal": 0,
		"exec": unix.EPERM, "ptrace": unix.EPERM, "memory": unix.EPERM, "unix": unix.EPERM,
		"signal": unix.EPERM, "unshare": unix.EPERM, "ring": unix.EPERM,
	}
	got, dir := escape(t)
	for name, w := range want {
		if g, ok := got[name]; !ok || g != w {
			t.Errorf("%s: %v (reported: %t); want %v", name, g, ok, w)
		}
	}
	if errno != 0 || abi < 3 {
		t.Skip("the kernel has no Landlock, or one that does not know truncate: what is left is not tried")
	}
	for name, w := range landlock {
		if g, ok := got[name]; !ok || g != w {
			t.Errorf("%s: %v (reported: %t); want %v", name, g, ok, w)
		}
	}
	for _, name := range []string{"written", "made"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "there")); string(b) != "there" {
		t.Errorf("the file has %q, %v", b, err)
	}
}

// What the other test sees is the confinement, and not the attempts' failing by themselves.
func TestWithoutConfinementNothingIsRefused(t *testing.T) {
	t.Parallel()
	got, _ := escape(t, "--confine", "off")
	for _, name := range []string{"write", "overwrite", "truncate", "remove", "mkdir", "unix", "signal", "unshare", "exec"} {
		if g, ok := got[name]; !ok || g != 0 {
			t.Errorf("%s: %v (reported: %t); want success", name, g, ok)
		}
	}
}
