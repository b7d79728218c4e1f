package tlsd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// These tests show what an attacker in a worker can do and see. The library of testdata/fault plays
// the attacker: it is built with -DESCAPE, and the worker loads it in the place of libssl.

// stranger is a user other than the test's, for tests that run as root.
var stranger = &syscall.Credential{Uid: 1234, Gid: 1234}

// attempt is the report of the library in a worker.
type attempt struct {
	dir     string                   // the folder in which the library tried to write
	there   []byte                   // what the test wrote into the caller's file there
	outcome map[string]syscall.Errno // the error of each act, 0 if the act succeeded
	inside  map[string]any           // what the library sees of its process
	log     string                   // the text of tlsd's log
}

// escape starts tlsd with the library, and makes a call as a user, so that a worker of this user
// loads the library. The parameter who is the user; nil means the test's own user. escape returns
// the library's report.
func escape(t *testing.T, who *syscall.Credential, flags ...string) attempt {
	t.Helper()
	lib := faultyLibrary(t, "-DESCAPE")
	cert := testcert.NewCA(t, "Test CA").Localhost(t)
	a := attempt{dir: testkit.Dir(t)}
	there := filepath.Join(a.dir, "there")
	key, err := os.ReadFile(cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := os.ReadFile(cert.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	// One file has certificate and key. It belongs to the caller.
	a.there = append(certificate, key...)
	if err := os.WriteFile(there, a.there, 0o600); err != nil {
		t.Fatal(err)
	}
	if who != nil {
		for _, path := range []string{a.dir, there} {
			if err := os.Chown(path, int(who.Uid), int(who.Gid)); err != nil {
				t.Fatal(err)
			}
		}
		flags = append(flags, "--allow-uid", fmt.Sprint(who.Uid))
	}
	log := filepath.Join(testkit.Dir(t), "log")
	sock := filepath.Join(filepath.Dir(log), "s")
	shell := "export SSLKEYLOGFILE=" + a.dir + "/keys SECRET=1 TLSD_LOG_LEVEL=info LANG=" +
		a.dir + "; exec 2>" + log + ";"
	startWith(t, nil, shell, append([]string{"--socket", sock, "--libssl", lib, "--log-format",
		"json"}, flags...)...)
	params, _ := json.Marshal([]string{there, there})
	if got := callAs(t, who, sock,
		`{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":`+string(
			params)+`}`); !strings.Contains(got, `"result":1`) {
		t.Fatalf("tls.NewServerContext must succeed: %s", got)
	}
	// The supervisor writes the worker's log entries, perhaps after the call's answer.
	a.log = untilLogged(t, log, "the library's report", func(text string) bool {
		return entry(text, "escape") != nil
	})
	a.inside, a.outcome = entry(a.log, "inside"), map[string]syscall.Errno{}
	for name, v := range entry(a.log, "escape") {
		if n, ok := v.(float64); ok {
			a.outcome[name] = syscall.Errno(n)
		}
	}
	return a
}

// untilLogged reads a daemon's log until the function ok accepts its text, and returns the text. If
// ok never accepts the text, the test fails. The parameter what then says what the log lacks.
func untilLogged(t *testing.T, log, what string, ok func(text string) bool) (text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the log of tlsd:\n%s", text)
		}
	}()
	testkit.Until(t, "the log has "+what, func() bool {
		b, err := os.ReadFile(log)
		testkit.Must(t, err)
		text = string(b)
		return ok(text)
	})
	return text
}

// entry returns the first log entry with this message, or nil.
func entry(log, msg string) map[string]any {
	for line := range strings.Lines(log) {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) == nil && e["msg"] == msg {
			return e
		}
	}
	return nil
}

// eachUser runs a test for the user who runs the tests. If this user is root, it also runs the test
// for another user.
func eachUser(t *testing.T, test func(*testing.T, *syscall.Credential)) {
	t.Run("own user", func(t *testing.T) { t.Parallel(); test(t, nil) })
	t.Run("another user", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root")
		}
		t.Parallel()
		test(t, stranger)
	})
}

func TestCodeInsideTheLibraryIsConfined(t *testing.T) {
	t.Parallel()
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0,
		unix.LANDLOCK_CREATE_RULESET_VERSION)
	landlock := map[string]syscall.Errno{"write": unix.EACCES, "overwrite": unix.EACCES,
		"environ": unix.EACCES}
	want := map[string]syscall.Errno{
		"read": 0, "elsewhere": 0, "tcp": 0, "ownSignal": 0,
		"exec": unix.EPERM, "fork": unix.EPERM, "ptrace": unix.EPERM, "memory": unix.EPERM,
		"limit": unix.EPERM, "unix": unix.EPERM,
		"signal": unix.EPERM, "unshare": unix.EPERM, "ring": unix.EPERM,
		"chmod": unix.EPERM, "memfd": unix.EPERM, "shared": unix.EPERM,
		"mount": unix.EPERM, "settime": unix.EPERM, "setuid": unix.EPERM, "raw": unix.EPERM,
		"dumpable": unix.EPERM, "remove": unix.EPERM, "mkdir": unix.EPERM,
		"truncate": unix.EPERM, "segment": unix.EPERM, "message": unix.EPERM,
		"priority": unix.EPERM, "affinity": unix.EPERM, "owner": unix.EPERM,
		"ioctlOwner": unix.ENOTTY, "pidfd": unix.EPERM,
	}
	eachUser(t, func(t *testing.T, who *syscall.Credential) {
		got := escape(t, who)
		for name, w := range want {
			if g, ok := got.outcome[name]; !ok || g != w {
				t.Errorf("the attacker's act %s ended with %v (the library has "+
					"reported the act: %t); want %v",
					name, g, ok, w)
			}
		}
		if errno != 0 || abi < 1 {
			t.Skip("the kernel has no Landlock, so acts on files are not checked")
		}
		for name, w := range landlock {
			if g, ok := got.outcome[name]; !ok || g != w {
				t.Errorf("the attacker's act %s ended with %v (the library has "+
					"reported the act: %t); want %v",
					name, g, ok, w)
			}
		}
		for _, name := range []string{"written", "made", "keys"} {
			if _, err := os.Lstat(filepath.Join(got.dir, name)); err == nil {
				t.Errorf("the attacker has made the file %s", name)
			}
		}
		// The file has a key, so the failure does not show its bytes.
		if b, err := os.ReadFile(filepath.Join(got.dir, "there")); err != nil ||
			!bytes.Equal(b, got.there) {
			t.Errorf("the attacker has changed the caller's file: it had %d bytes, "+
				"and has %d other bytes now, %v", len(got.there), len(b), err)
		}
	})
}

func TestReadingCanBeLimited(t *testing.T) {
	t.Parallel()
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0,
		unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 {
		t.Skip("needs Landlock")
	}
	eachUser(t, func(t *testing.T, who *syscall.Credential) {
		got := escape(t, who, "--readable", os.TempDir())
		if got.outcome["read"] != 0 || got.outcome["elsewhere"] != unix.EACCES {
			t.Errorf("--readable: reading a file in its folder: %v, want success; "+
				"reading /var: %v, want EACCES",
				got.outcome["read"], got.outcome["elsewhere"])
		}
	})
	// Scripts still work, but the worker cannot read a file outside of the folder of
	// --readable.
	cert := testcert.NewCA(t, "Test CA").Localhost(t)
	sock := filepath.Join(testkit.Dir(t), "s")
	startWith(t, nil, "", "--socket", sock, "--readable", filepath.Dir(cert.CertFile))
	s := newTalker(t, sock, echoServer(t))
	s.talk()
	s.ask("tls.NewServerContext", fmt.Sprintf("%q,%q", cert.CertFile, cert.KeyFile))
	var info struct {
		Result struct{ Trust struct{ Certificates int } }
	}
	if line := s.ask("tls.Info", ""); json.Unmarshal([]byte(line), &info) != nil ||
		info.Result.Trust.Certificates == 0 {
		t.Errorf("with --readable, the worker lacks the CAs of the system: %s", line)
	}
	other := filepath.Join(testkit.Dir(t), "there")
	if err := os.WriteFile(other, []byte("there"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.say("tls.SetCaBundle", fmt.Sprintf("%q", other))
	if got, err := s.hear(); err != nil || !strings.Contains(got, `"kind":"file"`) ||
		!strings.Contains(got, "permission denied") {
		t.Errorf("tls.SetCaBundle of a file outside of --readable: %s, %v; "+
			"want kind file, permission denied", got, err)
	}
}

// Without confinement the attacker's acts succeed. So it is the confinement that makes them fail in
// TestCodeInsideTheLibraryIsConfined.
func TestWithoutConfinementNothingIsRefused(t *testing.T) {
	t.Parallel()
	got := escape(t, nil, "--confine", "off").outcome
	names := []string{"environ", "elsewhere", "write", "overwrite", "truncate", "chmod",
		"remove", "mkdir", "unix", "signal", "limit", "unshare", "dumpable",
		"segment", "message", "priority", "affinity", "owner", "ioctlOwner", "pidfd",
		"memfd", "shared", "fork", "exec"}
	if os.Getuid() == 0 {
		names = append(names, "setuid", "raw", "mount", "settime")
	}
	for _, name := range names {
		if g, ok := got[name]; !ok || g != 0 {
			t.Errorf("without confinement, the attacker's act %s ended with %v (the "+
				"library has reported the act: %t); want success", name, g, ok)
		}
	}
}

func TestWorkerHasOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	eachUser(t, func(t *testing.T, who *syscall.Credential) {
		got := escape(t, who).inside
		const mayRead, mayBind = 1 << unix.CAP_DAC_READ_SEARCH,
			1 << unix.CAP_NET_BIND_SERVICE
		rights, bound := float64(0), got["bounding"]
		if os.Getuid() == 0 && who == nil {
			rights, bound = mayRead|mayBind, float64(2)
		}
		for name, want := range map[string]any{
			// no core file has the keys in the worker's memory
			"noNewPrivileges": 1.0, "core": 0.0, "dumpable": 0.0,
			// libssl has no terminal where it could ask for a pass phrase
			"stdin": 1.0, "leader": 1.0, "terminal": float64(unix.ENXIO),
			"permitted": rights, "effective": rights, "inheritable": 0.0, "upper": 0.0,
			"bounding": bound,
		} {
			if got[name] != want {
				t.Errorf("in the worker, %s is %v; want %v", name, got[name], want)
			}
		}
		env := fmt.Sprint(got["environment"])
		if env != "MALLOC_ARENA_MAX GOMAXPROCS LANG " {
			t.Errorf("the worker's environment has %s; want LANG of tlsd's "+
				"environment, and the two variables of every worker", env)
		}
		files := strings.Fields(fmt.Sprint(got["files"]))
		if len(files) < 4 {
			t.Errorf("the library has seen too few descriptors: %v", got["files"])
		}
		for _, f := range files {
			number, to, _ := strings.Cut(f, ":")
			known := number == "0" && to == "/dev/null" || number == "1" &&
				to == "/dev/null" || number == "2" &&
				strings.HasPrefix(to, "pipe:") ||
				strings.HasPrefix(to, "anon_inode:[event") ||
				strings.HasPrefix(to, "socket:") ||
				// Go's runtime reads there how many processors it may use
				strings.HasPrefix(to, "/sys/fs/cgroup/") ||
				// a file that the worker reads at this moment
				strings.HasPrefix(to, "/usr/") || strings.HasPrefix(to, "/etc/")
			if !known {
				t.Errorf("the worker has a descriptor that it does not need: %s", f)
			}
		}
	})
}

// A worker runs as its caller's user, and has keys in its memory. Other processes of the same user
// must not be able to read this memory.
func TestNoOtherProcessReadsAWorkersMemory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to call as other users")
	}
	t.Parallel()
	sock := filepath.Join(testkit.Dir(t), "s")
	startWith(t, nil, "", "--socket", sock, "--allow-uid", fmt.Sprint(stranger.Uid))
	// The caller keeps its session until its standard input ends.
	caller := exec.Command("/proc/self/exe", sock,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":[1]}`)
	caller.Env = []string{callerEnv + "=stay"}
	caller.Dir = "/"
	caller.SysProcAttr = &syscall.SysProcAttr{Credential: stranger}
	in, err := caller.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := caller.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	defer caller.Wait()
	defer in.Close()
	var hello struct {
		Result struct{ Server struct{ PID int } }
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &hello); err != nil || hello.Result.Server.PID == 0 {
		t.Fatalf("the answer to tls.Hello must have the worker's process ID: %s: "+
			"%v", line, err)
	}
	opens := func(pid string) error {
		cmd := exec.Command("sh", "-c", "exec 3</proc/"+pid+"/mem")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: stranger}
		return cmd.Run()
	}
	worker := fmt.Sprint(hello.Result.Server.PID)
	if b, err := os.ReadFile("/proc/" + worker + "/status"); err != nil ||
		!strings.Contains(string(b), "\nUid:\t1234\t1234\t1234\t1234\n") {
		t.Fatalf("the worker does not run as the caller's user: %v\n%s", err, b)
	}
	if err := opens("$$"); err != nil {
		t.Fatalf("a process cannot open even its own memory, so this test would prove "+
			"nothing: %v", err)
	}
	if err := opens(worker); err == nil {
		t.Error("a process of the caller's user can open the worker's memory")
	}
}

// If the variable lackEnv is set, the test binary installs a filter of system calls, and then
// executes another program, which inherits the filter. With the value 1, the filter acts like a
// kernel without Landlock and seccomp. With "forbidden", Landlock fails as if a service manager had
// forbidden it. With "deadly", the filter kills a process that calls Landlock.
const lackEnv = "TLSD_TEST_LACK"

func executeWithLacks(command []string) error {
	names, action := []string{"landlock_create_ruleset", "seccomp"},
		seccomp.ActionErrno|seccomp.Action(unix.ENOSYS)
	switch os.Getenv(lackEnv) {
	case "forbidden":
		names, action = names[:1], seccomp.ActionErrno
	case "deadly":
		names, action = names[:1], seccomp.ActionKillProcess
	}
	os.Unsetenv(lackEnv)
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{{
				Action: action, Names: names,
			}},
		}})
	if err != nil {
		return err
	}
	return syscall.Exec(command[0], command, os.Environ())
}

func TestWhatTheKernelLacksIsSaidOnceAndShown(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	sock, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	startWith(t, nil, `export `+lackEnv+`=1; exec 2>`+log+`; exec `+self+` "$0" "$@";`,
		"--socket", sock, "--log-format", "json")
	for range 3 {
		conn, in, _ := connect(t, sock)
		got := exchange(t, conn, in, `{"jsonrpc":"2.0","id":2,"method":"tls.Info"}`)
		for _, want := range []string{
			`"landlock":"the kernel has no Landlock: function not implemented"`,
			`"seccomp":"seccomp: function not implemented"`,
			`"noNewPrivileges":"on"`, `"capabilities":"on"`, `"backend":"openssl"`,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("tls.Info must show what the kernel lacks: got %s; it "+
					"lacks %s",
					got, want)
			}
		}
	}
	for _, measure := range []string{"landlock", "seccomp"} {
		entry := `"msg":"workers are confined in part only","without":"` + measure + `"`
		text := untilLogged(t, log, "a warning that "+measure+" is missing",
			func(text string) bool { return strings.Contains(text, entry) })
		if n := strings.Count(text, entry); n != 1 {
			t.Errorf("the log warns %d times that %s is missing; want once: %s", n,
				measure, text)
		}
	}
	doctor := exec.Command("go", "run", "tlsd/cmd/tlsshim", "doctor", "--socket", sock)
	out, _ := doctor.CombinedOutput()
	if !strings.Contains(string(out), "not in force: landlock (the kernel has no Landlock: "+
		"function not implemented), seccomp (seccomp: function not implemented)") {
		t.Errorf("tlsshim doctor must show what the kernel lacks; it says\n%s", out)
	}
}

func TestTlsdDoesNotStartIfRequiredConfinementIsIncomplete(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", binary, "--socket", filepath.Join(testkit.Dir(t),
		"s"),
		"--confine", "require")
	cmd.Env = []string{lackEnv + "=1"}
	out, _ := cmd.CombinedOutput()
	const want = "workers are confined in part only, and --confine=require wants all " +
		"measures; missing: landlock (the kernel has no Landlock: function not " +
		"implemented), seccomp ("
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), want) {
		t.Errorf("tlsd --confine=require on a kernel without Landlock: status %d, want 1 "+
			"and the missing measures: %s", code, out)
	}
}

// A filter around tlsd may forbid Landlock, or kill workers that call it. Then the caller is told
// of the filter, and not of an old kernel.
func TestAFilterAroundTheDaemonIsNamed(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for how, want := range map[string]string{
		"forbidden": `"landlock":"a filter of system calls around tlsd forbids Landlock (a unit's SystemCallFilter= lacks @sandbox`,
		"deadly":    `died of SIGSYS: a filter of system calls around tlsd (a unit's SystemCallFilter=, a container's profile)`,
	} {
		sock := filepath.Join(testkit.Dir(t), "s")
		startWith(t, nil, `export `+lackEnv+`=`+how+`; exec `+self+` "$0" "$@";`,
			"--socket", sock, "--spare", "0")
		conn, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(testkit.Patience))
		fmt.Fprintln(conn, `{"jsonrpc":"2.0","id":2,"method":"tls.Info"}`)
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(
			line, want) {
			t.Errorf("with a filter that is %s, the caller is told %s, %v; want %s",
				how, line, err, want)
		}
	}
}
