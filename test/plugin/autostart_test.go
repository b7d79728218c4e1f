package plugin

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// If no tlsd listens, the plugin starts a private one, which is no child of the host.

// If the environment has the variable asTLSD, this test program runs no tests. It is then a
// stand-in for tlsd that the plugin starts, with tlsd's flags. The variable's value says how the
// stand-in behaves (see standInMain).
const asTLSD = "TLSD_TEST_AS_TLSD"

// standInMain is the main function of the stand-in. When its last session has ended, it removes the
// socket and exits. Before it listens, it writes facts about its own process into SOCKET.facts.
func standInMain() {
	path := flag.String("socket", "", "")
	idle := flag.Duration("idle-exit", 0, "")
	ready := flag.Int("ready-fd", 0, "")
	admin := flag.String("admin-socket", "", "")
	flag.Parse()
	time.AfterFunc(testkit.Patience, func() { os.Exit(1) })
	pipe := os.NewFile(uintptr(*ready), "ready")

	switch os.Getenv(asTLSD) {
	case "fails":
		fmt.Fprintln(os.Stderr, "cannot listen")
		os.Exit(1)
	case "lies": // says that it is ready, but does not listen
		pipe.WriteString("\n")
		os.Exit(0)
	case "mute": // never says that it is ready; runs until the test's directory is removed
		for dir := filepath.Dir(*path); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(dir); err != nil {
				os.Exit(0)
			}
		}
	case "yields": // ends after it has started another stand-in, which listens only later
		pipe.Close()
		other := exec.Command("/proc/self/exe", os.Args[1:]...)
		other.Env = append(os.Environ(), asTLSD+"=late")
		if other.Start() != nil {
			os.WriteFile(*path, []byte("cannot start the other"), 0o600)
		}
		os.Exit(1)
	case "late": // the other tlsd of "yields"
		pipe = nil
		time.Sleep(100 * time.Millisecond)
	}
	cwd, _ := os.Getwd()
	facts := fmt.Sprintf("admin-socket %s\nidle-exit %v\ncwd %s\nsession %v\nNOTIFY_SOCKET "+
		"%q\n",
		*admin, *idle, cwd, isSessionLeader(), os.Getenv("NOTIFY_SOCKET"))
	facts += fmt.Sprintf("SIGHUP ignored %v\n", signal.Ignored(syscall.SIGHUP))
	status, _ := os.ReadFile("/proc/self/status")
	facts += regexp.MustCompile(`SigBlk:.*\n`).FindString(string(status))
	for fd := range 4 {
		target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		target, _, _ = strings.Cut(target, ":")
		facts += fmt.Sprintf("fd %d %s\n", fd, target)
	}
	var inherited []string
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, f := range fds {
		if target, _ := os.Readlink("/proc/self/fd/" + f.Name()); strings.HasSuffix(target,
			"inherit-me") {
			inherited = append(inherited, target)
		}
	}
	facts += fmt.Sprintf("inherited %v\n", inherited)
	facts += fmt.Sprintf("umask %04o\n", syscall.Umask(0o077))
	limits, _ := os.ReadFile("/proc/self/limits")
	for _, l := range regexp.MustCompile(
		`(?m)^Max (cpu time|core file size|stack size) +(\w+) +(\w+)`).FindAllStringSubmatch(string(limits), -1) {
		facts += fmt.Sprintf("%s %s of %s\n", l[1], l[2], l[3])
	}
	var names []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		// The shell of the script (writeTLSDs) sets these variables, and not the plugin.
		if !slices.Contains([]string{asTLSD, "PWD", "OLDPWD", "SHLVL", "_"}, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	facts += fmt.Sprintf("environment %v\n", names)

	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: *path, Net: "unix"})
	if err != nil { // another stand-in listens already; a real tlsd would exit, too
		os.Exit(1)
	}
	os.WriteFile(*path+".facts", []byte(facts), 0o600)
	os.WriteFile(*path+".pid", []byte(strconv.Itoa(os.Getpid())), 0o600)
	pipe.WriteString("\n")
	pipe.Close()
	ended := make(chan bool) // gets false if a session begins, and true if a session ends
	go func() {
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			ended <- false
			go func() {
				serveBackend(conn)
				ended <- true
			}()
		}
	}()
	for sessions, e := 0, <-ended; ; e = <-ended {
		if sessions++; e {
			sessions -= 2
		}
		if sessions == 0 {
			ln.Close() // removes the socket
			os.Exit(0)
		}
	}
}

// serveBackend answers tls.Hello and tls.Backend until the plugin closes the connection.
func serveBackend(conn *net.UnixConn) {
	p := newPeer(conn)
	for {
		r, err := p.read()
		if err != nil {
			return
		}
		answer := `"openssl"`
		if r.Method == "tls.Hello" {
			answer = `{"version":1,"capabilities":["data"]}`
		}
		fmt.Fprintf(conn, `{"jsonrpc":"2.0","id":%d,"result":%s}`+"\n", *r.ID, answer)
	}
}

func isSessionLeader() bool {
	sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	return int(sid) == os.Getpid()
}

// ways are the values of asTLSD that a test can choose. The value "late" is missing here: the
// stand-in "yields" sets it for the stand-in that it starts.
var ways = []string{"serves", "fails", "lies", "mute", "yields"}

// writeTLSDs writes a program for each value in the list ways: a shell script that sets asTLSD and
// starts this test program. asTLSD cannot come from the host, because the plugin does not pass this
// variable on.
func writeTLSDs() error {
	exe, err := os.Executable()
	for _, how := range ways {
		text := fmt.Sprintf("#!/bin/sh\nexport %s=%s\nexec %s \"$@\"\n", asTLSD, how, exe)
		err = firstError(err, os.WriteFile(filepath.Join(workDir, "tlsd-"+how),
			[]byte(text), 0o755))
	}
	return err
}

// tlsdThat returns the path of a stand-in that behaves in one of the ways.
func tlsdThat(t *testing.T, way string) string {
	t.Helper()
	if !slices.Contains(ways, way) {
		t.Fatalf("there is no stand-in that %s; want one of %v", way, ways)
	}
	return filepath.Join(workDir, "tlsd-"+way)
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// gone waits until the stand-in has removed its socket, which it does just before it exits.
func gone(t *testing.T, socket string) {
	t.Helper()
	testkit.Until(t, "the stand-in has removed its socket "+socket, func() bool {
		_, err := os.Lstat(socket)
		return os.IsNotExist(err)
	})
}

// Other programs use a private tlsd, too. So it inherits no descriptor, soft limit, umask,
// directory, session, signal mask or dangerous variable from the host that starts it. The host gets
// no child and no SIGCHLD.
func TestAPrivateTLSDIsStartedAndBelongsToNobody(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	socket, log, inheritMe := filepath.Join(dir, "s"), filepath.Join(dir, "log"),
		filepath.Join(dir, "inherit-me")
	if err := os.WriteFile(inheritMe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// This host has limits, variables and open files that tlsd must not inherit.
	h := startHostWith(t, hostOptions{flavour: plain,
		wrapper: []string{testkit.Tool(t, "prlimit"), "--cpu=60:unlimited",
			"--core=unlimited",
			"--stack=100000:unlimited", testkit.Tool(t, "sh"), "-c",
			`umask 0 && exec "$@"`, "sh"},
		env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket,
			"TLSD_EXE=" + tlsdThat(t, "serves"), "TLSD_LOG=" + log, "NOTIFY_SOCKET=/x",
			"HOME=/", "LANG=C", "LC_ALL=C", "LOGNAME=me", "TZ=UTC", "USER=me",
			"SSL_CERT_FILE=/evil", "SSL_CERT_DIR=/evil", "OPENSSL_CONF=/evil",
			"LD_LIBRARY_PATH=/evil", "TLSD_ALLOW_UID=1", "TLSD_POLICY=/evil",
			"GODEBUG=", "ANYTHING=x"}})
	h.send("count-sigchld").gives(0, "")
	for range 5 {
		if r := h.call("inherit", inheritMe); r.N < 0 {
			t.Fatal("cannot open a file to inherit")
		}
	}
	h.send("ignore", int(syscall.SIGHUP)).gives(0, "")
	before := h.call("status").Text
	h.send("Backend").gives(7, "openssl")
	after := h.call("status").Text

	// The host has three more descriptors: the session's socket, and both ends of the pipe of
	// tls_Cancel. Nothing else in its status may change.
	var threads, fds int
	fmt.Sscanf(before, "threads %d fds %d", &threads, &fds)
	want := strings.Replace(before, fmt.Sprintf("fds %d", fds), fmt.Sprintf("fds %d", fds+3), 1)
	if after != want {
		t.Errorf("the start of tlsd has changed the host's status to\n%s\nwant\n%s", after,
			want)
	}
	if !strings.Contains(before, "children none sigchlds 0") {
		t.Errorf("before the start of tlsd the host's status is\n%s\nwant no child, and "+
			"no SIGCHLD", before)
	}

	facts, err := os.ReadFile(socket + ".facts")
	if err != nil {
		t.Fatal(err)
	}
	wantFacts := "admin-socket none\nidle-exit 1m0s\ncwd /\nsession true\n" +
		"NOTIFY_SOCKET \"\"\nSIGHUP ignored false\nSigBlk:\t0000000000000000\n" +
		"fd 0 /dev/null\nfd 1 /dev/null\nfd 2 " + log + "\nfd 3 pipe\n" +
		"inherited []\numask 0077\ncpu time unlimited of unlimited\n" +
		"stack size 8388608 of unlimited\ncore file size 0 of unlimited\n" +
		"environment [HOME LANG LC_ALL LOGNAME PATH TZ USER]\n"
	if string(facts) != wantFacts {
		t.Errorf("the process of the started tlsd has the facts\n%s\nwant\n%s", facts,
			wantFacts)
	}
	h.send("exit")
	gone(t, socket)
}

// A host that ignores SIGCHLD cannot wait for a child's status. Even in such a host the plugin
// starts a tlsd.
func TestAutostartDoesNotDependOnTheHostsSIGCHLD(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(nowhere(t), "s")
	h := startHost(t, "TLSD_AUTOSTART=1", "TLSD_SOCKET="+socket,
		"TLSD_EXE="+tlsdThat(t, "serves"))
	h.send("ignore", int(syscall.SIGCHLD)).gives(0, "")
	h.send("Backend").gives(7, "openssl")
	h.send("exit")
	gone(t, socket)
}

// The plugin finds tlsd on PATH, and tlsd gets a socket in XDG_RUNTIME_DIR. Relative entries of
// PATH do not count: a script's directory could contain a program named tlsd.
func TestTLSDIsStartedFromPATHInTheRuntimeDirectory(t *testing.T) {
	t.Parallel()
	dir, bin := nowhere(t), t.TempDir()
	if err := os.Symlink(tlsdThat(t, "serves"), filepath.Join(bin, "tlsd")); err != nil {
		t.Fatal(err)
	}
	// The relative entries of PATH lead to these programs, which fail.
	cwd := t.TempDir()
	if err := os.Mkdir(filepath.Join(cwd, "relative"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, trap := range []string{"relative/tlsd", "tlsd"} {
		if err := os.WriteFile(filepath.Join(cwd, trap), []byte("#!/bin/false\n"),
			0o700); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"TLSD_AUTOSTART=", "XDG_RUNTIME_DIR=" + dir,
		"PATH=relative::.:/nonexistent:" + bin}
	h := startHost(t, env...)
	h.send("chdir", cwd).gives(0, "")
	h.send("Backend").gives(7, "openssl")
	if _, err := os.Lstat(filepath.Join(dir, "tlsd.sock")); err != nil {
		t.Errorf("tlsd has no socket in XDG_RUNTIME_DIR: %v", err)
	}
	h.send("exit")
	gone(t, filepath.Join(dir, "tlsd.sock"))
}

func TestPluginsThatStartATLSDAtTheSameTimeShareOne(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(nowhere(t), "s")
	env := []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket,
		"TLSD_EXE=" + tlsdThat(t, "serves")}
	hosts := make([]*host, 4)
	for i := range hosts {
		hosts[i] = startHostWith(t, hostOptions{flavour: plain, env: env})
		hosts[i].send("LastError").gives(0, "") // so all hosts run before the calls below
	}
	var calls []*pending
	for _, h := range hosts {
		calls = append(calls, h.start("Version", 0))
	}
	for _, c := range calls {
		c.gives(7, "openssl")
	}
	for _, h := range hosts {
		h.send("exit")
	}
	gone(t, socket)
}

// If the started tlsd ends because another one starts at the same time, the plugin waits until the
// other one listens.
func TestATLSDThatYieldsToAnotherIsNoFailure(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(nowhere(t), "s")
	h := startHost(t, "TLSD_AUTOSTART=", "TLSD_SOCKET="+socket,
		"TLSD_EXE="+tlsdThat(t, "yields"))
	h.send("Backend").gives(7, "openssl")
	h.send("exit")
	gone(t, socket)
}

func TestAFailedAutostartSaysWhatWasTried(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	notExecutable := filepath.Join(dir, "text")
	if err := os.WriteFile(notExecutable, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	for _, c := range []struct {
		env  []string
		want []string
	}{
		{[]string{"TLSD_EXE=" + tlsdThat(t, "fails")},
			[]string{socket + ": No such file or directory",
				"starting " + tlsdThat(t, "fails"), "ended before it listened"}},
		{[]string{"TLSD_EXE=" + tlsdThat(t, "lies")},
			[]string{"starting " + tlsdThat(t, "lies"), socket + ": No such file or " +
				"directory"}},
		{[]string{"TLSD_EXE=" + notExecutable},
			[]string{"starting " + notExecutable + ": Permission denied"}},
		{[]string{"TLSD_EXE=/nonexistent/tlsd"}, []string{"starting /nonexistent/tlsd: " +
			"No such file or directory"}},
		{[]string{"PATH=/nonexistent"}, []string{"PATH has no tlsd to start, and " +
			"TLSD_EXE does not name one"}},
		{[]string{"TLSD_EXE=" + self(t), "TLSD_LOG=/nonexistent/log"},
			[]string{"TLSD_LOG: /nonexistent/log: No such file or directory"}},
		{[]string{"TLSD_EXE=" + self(t), "TLSD_AUTOSTART=0"},
			[]string{socket + ": No such file or directory; no private tlsd was " +
				"started, because TLSD_AUTOSTART is 0"}},
	} {
		h := startHost(t, append([]string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket},
			c.env...)...)
		// The first call makes the pipe of tls_Cancel. So the status is read after it.
		h.send("Backend").gives(4, "stub")
		before := h.call("status").Text
		h.send("NewClient", "example.com", 443).fails("tls.NewClient: backend: no tlsd: ",
			c.want...)
		h.send("Backend").gives(4, "stub")
		if after := h.call("status").Text; after != before {
			t.Errorf("%v: the failed start has changed the host's status from\n%s\n"+
				"to\n%s", c.env, before, after)
		}
	}
}

// killed kills the stand-in that listens on the socket, removes the socket, and waits until the
// process has been reaped.
func killed(t *testing.T, socket string) {
	t.Helper()
	text, err := os.ReadFile(socket + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err = firstError(err, syscall.Kill(pid, syscall.SIGKILL), os.Remove(socket),
		os.Remove(socket+".pid")); err != nil {
		t.Fatal(err)
	}
	awaitDeath(t, pid)
}

// childrenOf lists the children of a process that has one thread (proc_tid_children(5)).
func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	testkit.Must(t, err)
	return strings.Fields(string(children))
}

// awaitZombie waits until the process has ended. Its parent has not reaped it, so it is a zombie
// (proc_pid_stat(5)).
func awaitZombie(t *testing.T, pid string) {
	t.Helper()
	testkit.Until(t, "process "+pid+" has ended", func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		testkit.Must(t, err)
		state := strings.TrimSpace(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		return strings.HasPrefix(state, "Z")
	})
}

// A subreaper inherits orphans (prctl(2)). If the host is a subreaper, it has one more child, which
// is the parent of tlsd until tlsd ends. The host gets no SIGCHLD from this intermediate process or
// from tlsd, and its wait(2) finds neither of the two.
func TestAHostThatInheritsOrphansSeesNoStranger(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	socket := filepath.Join(dir, "s")
	h := startHostWith(t, hostOptions{flavour: plain,
		env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket,
			"TLSD_EXE=" + tlsdThat(t, "serves")}})
	h.send("subreaper").gives(0, "")
	h.send("count-sigchld").gives(0, "")
	for range 3 {
		h.send("Backend").gives(7, "openssl")
		h.send("wait-any").gives(0, "")
		killed(t, socket)
		h.send("wait-any").gives(0, "")
		if s := h.call("status").Text; !strings.Contains(s, "sigchlds 0") {
			t.Errorf("the host has got a SIGCHLD; its status is %s", s)
		}
		// When the plugin starts the next tlsd, it reaps the intermediate process of the
		// previous tlsd, if the process has ended. So this test waits until it has ended.
		children := childrenOf(t, h.PID)
		if len(children) > 1 {
			t.Errorf("the host has the children %v; want at most one, an intermediate "+
				"process", children)
		}
		for _, child := range children {
			awaitZombie(t, child)
		}
	}
	// The error of a failed start is the same as in other hosts.
	h = startHostWith(t, hostOptions{flavour: plain,
		env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket,
			"TLSD_EXE=/nonexistent/tlsd"}})
	h.send("subreaper").gives(0, "")
	h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ",
		"starting /nonexistent/tlsd: No such file or directory")
}

// Process 1 of a PID namespace inherits all orphans of the namespace. As a host it gets no SIGCHLD
// from processes that the plugin has started, and its wait(2) does not find them.
func TestAHostThatIsProcess1SeesNoStranger(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, for a PID namespace")
	}
	socket := filepath.Join(nowhere(t), "s")
	h := startHostWith(t, hostOptions{flavour: plain,
		wrapper: []string{testkit.Tool(t, "unshare"),
			"--pid", "--fork", "--mount-proc"},
		env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket,
			"TLSD_EXE=" + tlsdThat(t, "serves")}})
	h.send("count-sigchld").gives(0, "")
	h.send("Backend").gives(7, "openssl")
	h.send("wait-any").gives(0, "")
	if s := h.call("status").Text; !strings.Contains(s, "sigchlds 0") {
		t.Errorf("the host has got a SIGCHLD; its status is %s", s)
	}
}

// If TLSD_LOG names a FIFO or another file that is not regular, the call fails at once. To open
// such a file could take for ever.
func TestALogThatIsNoRegularFileIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ln, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := firstError(syscall.Mkfifo(at("fifo"), 0o600),
		syscall.Mkfifo(at("read-fifo"), 0o600), os.Mkdir(at("directory"), 0o700),
		os.WriteFile(at("file"), nil, 0o600), os.Symlink("file", at("link")),
		os.Symlink("fifo", at("fifo-link"))); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(at("read-fifo"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, log := range []string{at("fifo"), at("read-fifo"), at("socket"), at("directory"),
		at("link"), at("fifo-link"), "/dev/null", "/dev/full"} {
		h := startHostWith(t, hostOptions{flavour: plain,
			env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + at("s"),
				"TLSD_EXE=" + tlsdThat(t, "serves"), "TLSD_LOG=" + log}})
		h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ",
			"TLSD_LOG: "+log+": it must be a regular file, and no link")
	}
	if os.Geteuid() == 0 { // a regular file that the host's user may not write
		h := startHostWith(t, hostOptions{flavour: plain,
			wrapper: []string{testkit.Tool(t, "setpriv"), "--reuid=54325",
				"--clear-groups"},
			env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=/nonexistent/s",
				"TLSD_EXE=" + tlsdThat(t, "serves"), "TLSD_LOG=" + at("file")}})
		h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ",
			"TLSD_LOG: "+at("file")+": Permission denied")
	}
	h := startHostWith(t, hostOptions{flavour: plain,
		env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + at("s"),
			"TLSD_EXE=" + tlsdThat(t, "serves"), "TLSD_LOG=" + at("file")}})
	h.send("Backend").gives(7, "openssl")
	h.send("exit")
	gone(t, at("s"))
}

// A private tlsd has the host's hard limits, and other programs use it, too. If a limit is too low
// for several programs, the plugin starts none, and the error names the limit.
func TestTheErrorNamesAHardLimitThatIsTooLow(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(nowhere(t), "s")
	for limit, want := range map[string]string{
		"--nofile=10": "a hard limit of 10 for open files",
		"--nofile=100": "a hard limit of 100 for open files (ulimit -Hn); tlsd would " +
			"inherit this limit, but needs 256",
		"--cpu=60": "a hard limit of 60 for the seconds of CPU time (ulimit -Ht)",
	} {
		h := startHostWith(t, hostOptions{flavour: plain,
			wrapper: []string{testkit.Tool(t, "prlimit"), limit},
			env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket,
				"TLSD_EXE=" + tlsdThat(t, "serves")}})
		h.send("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: ", want)
	}
	h := startHostWith(t, hostOptions{flavour: plain,
		wrapper: []string{testkit.Tool(t, "prlimit"),
			"--nofile=32:1024", "--cpu=60:unlimited"},
		env: []string{"TLSD_AUTOSTART=", "TLSD_SOCKET=" + socket,
			"TLSD_EXE=" + tlsdThat(t, "serves")}})
	h.send("Backend").gives(7, "openssl")
	h.send("exit")
	gone(t, socket)
}
