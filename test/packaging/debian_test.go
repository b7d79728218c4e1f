//go:build packages || containers

package packaging

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// need skips the test if a tool is missing.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
}

// The constant included lists packages for the function debian. The function installs them in
// addition to Debian's minimal set (--variant=minbase).
const included = "openssl,ca-certificates,systemd,dbus,iproute2,rpm"

// debian returns a folder with a Debian of the release that this machine runs. It makes the folder
// once, and keeps it in the user's cache folder. If that is not possible, it skips the test.
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
	root := filepath.Join(cache, "tlsd", fmt.Sprintf("debian-%s-%08x", m[1],
		crc32.ChecksumIEEE([]byte(included))))
	if _, err := os.Stat(root); err == nil {
		return root
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	unfinished := root + ".unfinished"
	os.RemoveAll(unfinished)
	args := []string{"--variant=minbase",
		"--include=" + included, m[1], unfinished}
	if mirror := os.Getenv("TLSD_DEBIAN_MIRROR"); mirror != "" {
		args = append(args, mirror)
	}
	if out, err := exec.Command("debootstrap", args...).CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("SKIPPED: debootstrap fails: %v: %s", err, lines[len(lines)-1])
	}
	if err := os.Rename(unfinished, root); err != nil {
		t.Fatal(err)
	}
	return root
}

// copyOfSource copies the source tree into a new folder: the files in Git, and new files that Git
// does not ignore.
func copyOfSource(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = top
	list, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for _, file := range bytes.Split(bytes.TrimRight(list, "\x00"), []byte{0}) {
		from, to := filepath.Join(top, string(file)), filepath.Join(dir, string(file))
		info, err := os.Lstat(from)
		if err != nil || !info.Mode().IsRegular() {
			continue // Git still lists a removed file until the commit
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(readFile(t, from)),
			info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
