package policy

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// place makes a folder with the files of these tests. The function that place returns gives the
// path of a file in the folder.
func place(t *testing.T) (p func(name string) string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	check(t, err)
	p = func(name string) string { return filepath.Join(dir, name) }
	check(t, os.MkdirAll(p("keys/sub"), 0o700))
	check(t, os.Mkdir(p("keys-of-others"), 0o700))
	for _, name := range []string{"keys/a", "keys/sub/b", "keys-of-others/c", "d"} {
		check(t, os.WriteFile(p(name), []byte(name), 0o600))
	}
	check(t, os.Symlink(p("d"), p("keys/out")))
	check(t, os.Symlink(p("keys/a"), p("in")))
	check(t, os.Symlink(p("keys"), p("linked")))
	check(t, os.Symlink("..", p("keys/up")))
	check(t, os.Symlink("/proc/self/root"+p("keys/a"), p("keys/magic")))
	check(t, os.Symlink("loop", p("keys/loop")))
	check(t, unix.Mkfifo(p("keys/fifo"), 0o600))
	return p
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A file may be opened if it is in a folder of the policy after all links of its path are followed.
// The folders that the path names do not count.
func TestTheRealPlaceOfAFileCounts(t *testing.T) {
	t.Parallel()
	p := place(t)
	folders := Folders{Folder{p("none")}, Folder{p("keys")}}
	self := "/proc/self/fd/"
	open, err := os.Open(p("keys/a"))
	check(t, err)
	defer open.Close()
	for _, tc := range []struct {
		folders Folders
		path    string
		content string // "": the file is outside
	}{
		{folders, p("keys/a"), "keys/a"},
		{folders, p("keys/sub/b"), "keys/sub/b"},
		{folders, p("keys") + "/sub/../a", "keys/a"},
		{folders, p("keys") + "/../keys/a", "keys/a"},
		{folders, p("in"), "keys/a"}, // a link to keys/a
		{folders, p("linked/a"), "keys/a"},
		{folders, p("keys/up/keys/a"), "keys/a"},
		// magic links of /proc are refused, because they can lead to another root
		{folders, "/proc/self/root" + p("keys/a"), ""},
		{folders, fmt.Sprint(self, open.Fd()), ""},
		{folders, p("keys/magic"), ""},
		{folders, p("keys/loop"), ""},
		{folders, p("d"), ""},
		{folders, p("keys-of-others/c"), ""},
		{folders, p("keys/out"), ""},
		{folders, p("keys") + "/../d", ""},
		{folders, p("keys/up/d"), ""},
		{folders, p("keys"), ""},
		{folders, p("keys") + "/", ""},
		{folders, p("nothing"), ""},
		{folders, p("keys") + "/../nothing", ""},
		{folders, "/dev/null", ""},
		{Folders{Folder{p("linked")}}, p("keys/a"), "keys/a"},
		{Folders{Folder{p("keys/a")}}, p("keys/a"), ""}, // keys/a is a file
		{Folders{{"/"}}, p("d"), "d"},
		{Folders{}, p("keys/a"), ""},
		{nil, p("d"), "d"},
		{nil, "/proc/self/root" + p("d"), "d"},
	} {
		f, err := tc.folders.Open(tc.path)
		if tc.content == "" {
			if f != nil || !errors.Is(err, ErrOutside) {
				t.Errorf("with the folders %v, Open of %s returns %v, want "+
					"ErrOutside", tc.folders, tc.path, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("with the folders %v, Open of %s returns %v, want the file",
				tc.folders, tc.path, err)
			continue
		}
		text := make([]byte, 100)
		if n, err := f.Read(text); string(text[:n]) != tc.content {
			t.Errorf("with the folders %v, Open of %s returns a file with %q, %v; "+
				"want %q", tc.folders, tc.path, text[:n], err, tc.content)
		}
		check(t, f.Close())
	}
	for path, want := range map[string]error{p("keys/x"): fs.ErrNotExist,
		p("keys/a/x"): unix.ENOTDIR, p("keys/../keys/x"): fs.ErrNotExist} {
		if _, err := folders.Open(path); !errors.Is(err, want) {
			t.Errorf("Open of %s returns %v, want %v", path, err, want)
		}
	}
	f, err := folders.Open(p("keys/fifo")) // must not wait for a writer
	check(t, err)
	f.Close()
}

// A user can make a mount namespace in which the path of an allowed file names another file. A path
// through /proc/PID/root must not reach that file.
func TestOtherMountNamespacesDoNotLeadAroundTheFolders(t *testing.T) {
	t.Parallel()
	p := place(t)
	check(t, os.WriteFile(p("keys-of-others/evil"), []byte("evil"), 0o600))
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount --bind "$1" "$2" && echo ready && read end`,
		"sh", p("keys-of-others"), p("keys"))
	if os.Getuid() != 0 {
		cmd.Args = append([]string{"unshare", "--map-root-user"}, cmd.Args[1:]...)
	}
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	if err := cmd.Start(); err != nil {
		t.Skipf("no mount namespaces: %v", err)
	}
	defer cmd.Wait()
	defer in.Close() // ends the shell
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Skipf("no mount namespaces: %v", err)
	}
	path := fmt.Sprintf("/proc/%d/root%s", cmd.Process.Pid, p("keys/evil"))
	// An ordinary open reaches the other file by this path.
	if text, err := os.ReadFile(path); err != nil || string(text) != "evil" {
		t.Fatalf("an ordinary open of %s gives %q, %v; want evil, the file of the other "+
			"mount namespace, or this test shows nothing", path, text, err)
	}
	check(t, os.Symlink(path, p("keys/evil-link")))
	for _, path := range []string{path, p("keys/evil-link"), filepath.Dir(path) + "/a"} {
		if f, err := (Folders{{p("keys")}}).Open(path); f != nil ||
			!errors.Is(err, ErrOutside) {
			t.Errorf("Open of %s returns %v, want ErrOutside", path, err)
		}
	}
}

// If the process has no free descriptor, Open fails with EMFILE, and does not say that the file is
// outside. The test is not parallel, because it limits the descriptors of the process.
func TestALackOfDescriptorsIsNotTakenForAFileOutside(t *testing.T) {
	p := place(t)
	folders := Folders{{p("none")}, {p("keys")}}
	var all unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &all))
	opened := false
	for limit := uint64(0); !opened && limit < 1000; limit++ {
		few := unix.Rlimit{Cur: limit, Max: all.Max}
		check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
		f, err := folders.Open(p("keys/a"))
		check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &all))
		if err == nil {
			opened = true
			f.Close()
		} else if !errors.Is(err, unix.EMFILE) {
			t.Errorf("with a limit of %d descriptors, Open returns %v; want EMFILE or "+
				"the file", limit, err)
		}
	}
	if !opened {
		t.Error("Open has failed with each limit below 1000")
	}
}

// If the kernel has no openat2, or a sandbox refuses it, no file is opened, and the error says why.
func TestFoldersNeedOpenat2(t *testing.T) {
	t.Parallel()
	const folder, errno = "TEST_FOLDER", "TEST_ERRNO"
	if dir := os.Getenv(folder); dir != "" { // this is the child process of the test
		var value uint32
		fmt.Sscan(os.Getenv(errno), &value)
		check(t, seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true,
			Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
				DefaultAction: seccomp.ActionAllow,
				Syscalls: []seccomp.SyscallGroup{{
					Action: seccomp.ActionErrno | seccomp.Action(value),
					Names:  []string{"openat2"},
				}},
			}}))
		_, err := Folders{{dir}}.Open(dir + "/a")
		fmt.Println("child:", err)
		return
	}
	p := place(t)
	for _, value := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), folder+"="+p("keys"),
			fmt.Sprint(errno, "=", int(value)))
		out, err := cmd.CombinedOutput()
		want := fmt.Sprintf(
			"child: open %s: the policy's folders need openat2(2) of Linux 5.6: %v",
			p("keys/a"), value)
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("openat2 fails with %v; the child process ends with %v, and "+
				"prints %s; want %s", value, err, out, want)
		}
	}
}
