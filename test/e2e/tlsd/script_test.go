// Package tlsd runs scripts over the real daemon. Each file of testdata is a script of package
// testscript, with its own directory and its own socket path $S. It has these commands besides the
// package's own:
//
//	run STATUS [flag …]      run tlsd like exec; it must end with this status
//	start NAME [flag …]      start tlsd; it is ready when the command ends
//	signal NAME|PID SIGNAL   send a signal to a daemon, or to a process
//	exits NAME STATUS        wait for the end of a daemon; STATUS may be "killed"
//	log NAME REGEXP [VAR]    wait for a line in its log; VAR gets the match of the group
//	[!] logged NAME REGEXP   the log must have such a line now; with !, it must not
//	open NAME                begin a session
//	ask NAME METHOD WANT     call a method of the session; the answer must match
//	close NAME               end the session
//	cut NAME                 wait until the daemon has ended the connection without a message
//	told NAME WANT           wait for a last line that matches, and the end of the connection
//	call LINE …              a session that sends these lines; the answers go to stdout
//	mode PATH MODE           the path must be a socket with these permissions
//	gone PATH|PIDS           wait until the file, or all processes, do not exist any more
//	children NAME N [VAR]    wait until N children of the daemon run; VAR gets their pids
//
// Every wait has a limit. Everything that a script starts is gone when the script ends.
package tlsd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
	"tlsd/test/e2e/script"
)

// binary is the daemon under test.
var binary string

func TestMain(m *testing.M) {
	if os.Getenv(callerEnv) != "" {
		os.Exit(callAndPrint(os.Args[1], os.Args[2]))
	}
	if os.Getenv(lackEnv) != "" {
		fmt.Fprintln(os.Stderr, executeWithLacks(os.Args[1:]))
		os.Exit(1)
	}
	os.Setenv("TLSD_CONFIG", "none") // a daemon of a test does not take the machine's settings
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tlsd-bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "tlsd")
		build := exec.Command("go", "build", "-ldflags",
			"-X tlsd/internal/version.Version=1.2.3-test", "-o", binary,
			"tlsd/cmd/tlsd")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build tlsd: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			// The folder has a short name, because a socket's path may not be long.
			dir, err := os.MkdirTemp("", "tlsd")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("TLSD_CONFIG", "none") // not the machine's settings
			env.Setenv("S", filepath.Join(dir, "s"))
			env.Setenv("PATH", filepath.Dir(binary)+":"+os.Getenv("PATH"))
			env.Values[worldKey{}] = &world{daemons: map[string]*daemon{},
				sessions: map[string]*session{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run":   script.Run(binary),
			"start": start, "signal": sendSignal, "exits": exits,
			"log": awaitLog, "logged": logged,
			"open": open, "ask": ask, "close": closeSession, "cut": cut, "told": told,
			"call": call,
			"mode": mode, "gone": gone, "children": children,
		},
	})
}

// world has everything that one script has made.
type world struct {
	daemons  map[string]*daemon
	sessions map[string]*session
}

type worldKey struct{}

type daemon struct {
	cmd   *exec.Cmd
	log   string // the path of the file
	ended chan struct{}
}

type session struct {
	net.Conn
	in   *bufio.Reader
	last int // the id of the newest call
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func (w *world) daemon(ts *testscript.TestScript, name string) *daemon {
	d := w.daemons[name]
	if d == nil {
		ts.Fatalf("there is no daemon %q", name)
	}
	return d
}

func (w *world) session(ts *testscript.TestScript, name string) *session {
	s := w.sessions[name]
	if s == nil {
		ts.Fatalf("there is no session %q", name)
	}
	return s
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 1, 100)
	w, name := worldOf(ts), args[0]
	d := &daemon{log: ts.MkAbs(name + ".log"), ended: make(chan struct{})}
	log, err := os.Create(d.log)
	ts.Check(err)
	defer log.Close()
	ready, theirs, err := os.Pipe()
	ts.Check(err)
	defer ready.Close()

	d.cmd = exec.Command(binary, args[1:]...)
	d.cmd.Dir = ts.MkAbs(".")
	d.cmd.Stderr = log
	d.cmd.ExtraFiles = []*os.File{theirs}
	d.cmd.Env = []string{"TLSD_SOCKET=" + ts.Getenv("S"), "TLSD_READY_FD=3",
		"TLSD_LOG_LEVEL=debug", "TLSD_CONFIG=none", "PATH=" + ts.Getenv("PATH")}
	err = d.cmd.Start()
	theirs.Close()
	ts.Check(err)
	go func() { defer close(d.ended); d.cmd.Wait() }()
	ts.Defer(func() { d.cmd.Process.Kill(); <-d.ended })
	w.daemons[name] = d

	ready.SetReadDeadline(time.Now().Add(testkit.Patience))
	if got, err := io.ReadAll(ready); string(got) != "\n" || err != nil {
		text, _ := os.ReadFile(d.log)
		ts.Fatalf(
			"%s says %q, %v on --ready-fd, want one newline and its end; its log:\n%s",
			name, got, err, text)
	}
}

func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 2, 2)
	sig := unix.SignalNum("SIG" + args[1])
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		pid = worldOf(ts).daemon(ts, args[0]).cmd.Process.Pid
	}
	if sig == 0 || pid <= 1 {
		ts.Fatalf("no signal %s, or no process %d", args[1], pid)
	}
	ts.Check(unix.Kill(pid, sig))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 2, 2)
	d := worldOf(ts).daemon(ts, args[0])
	testkit.Receive(ts, d.ended, args[0]+" ends")
	state := d.cmd.ProcessState
	got := strconv.Itoa(state.ExitCode())
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		got = "killed"
	}
	if got != args[1] {
		ts.Fatalf("%s ends with %s; want %s", args[0], got, args[1])
	}
}

// find looks for a line of the daemon's log.
func (d *daemon) find(ts *testscript.TestScript, pattern string) []string {
	text, err := os.ReadFile(d.log)
	ts.Check(err)
	re, err := regexp.Compile(pattern)
	ts.Check(err)
	for line := range strings.Lines(string(text)) {
		if m := re.FindStringSubmatch(line); m != nil {
			return m
		}
	}
	return nil
}

func awaitLog(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 2, 3)
	d := worldOf(ts).daemon(ts, args[0])
	var found []string
	testkit.Until(ts, "the log of "+args[0]+" has a line that matches "+args[1], func() bool {
		found = d.find(ts, args[1])
		return found != nil
	})
	if len(args) == 3 {
		if len(found) < 2 {
			ts.Fatalf("the pattern has no group for the variable: %q", args[1])
		}
		ts.Setenv(args[2], found[1])
	}
}

func logged(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, false, args, 2, 2)
	found := worldOf(ts).daemon(ts, args[0]).find(ts, args[1])
	if neg && found != nil {
		ts.Fatalf("the log of %s must have no line that matches %q; it has %q", args[0],
			args[1], found)
	}
	if !neg && found == nil {
		ts.Fatalf("the log of %s has no line that matches %q", args[0], args[1])
	}
}

func dial(ts *testscript.TestScript) *session {
	conn, err := net.Dial("unix", ts.Getenv("S"))
	ts.Check(err)
	ts.Defer(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	return &session{Conn: conn, in: bufio.NewReader(conn)}
}

func open(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 1, 1)
	worldOf(ts).sessions[args[0]] = dial(ts)
}

func ask(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 3, 3)
	s := worldOf(ts).session(ts, args[0])
	s.last++
	_, err := fmt.Fprintf(s, `{"jsonrpc":"2.0","id":%d,"method":%q}`+"\n", s.last, args[1])
	ts.Check(err)
	line, err := s.in.ReadString('\n')
	ts.Check(err)
	if !strings.Contains(line, fmt.Sprintf(`"id":%d`, s.last)) ||
		!regexp.MustCompile(args[2]).MatchString(line) {
		ts.Fatalf("%s is answered with %swant %s", args[1], line, args[2])
	}
}

func closeSession(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 1, 1)
	ts.Check(worldOf(ts).session(ts, args[0]).Close())
}

func cut(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 1, 1)
	rest, err := io.ReadAll(worldOf(ts).session(ts, args[0]).in)
	if ne, ok := err.(net.Error); ok && ne.Timeout() || len(rest) > 0 {
		ts.Fatalf("tlsd must end session %s without a message: %q, %v", args[0], rest, err)
	}
}

func told(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 2, 2)
	rest, err := io.ReadAll(worldOf(ts).session(ts, args[0]).in)
	ok, bad := regexp.Match(args[1], rest)
	ts.Check(bad)
	if !ok || bytes.Count(rest, []byte("\n")) != 1 || !bytes.HasSuffix(rest, []byte("\n")) {
		ts.Fatalf("session %s is told %q, %v; want %s", args[0], rest, err, args[1])
	}
}

func call(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 1, 100)
	s := dial(ts)
	// The daemon may refuse this caller, and close the connection before it has read the lines.
	// Then the writes fail, but the daemon's message can be read.
	for _, line := range args {
		fmt.Fprintln(s, line)
	}
	s.Conn.(*net.UnixConn).CloseWrite()
	answers, err := io.ReadAll(s.in)
	if err != nil && len(answers) == 0 {
		ts.Fatalf("the daemon has not answered: %v", err)
	}
	ts.Stdout().Write(answers)
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 2, 2)
	info, err := os.Lstat(args[0])
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] ||
		info.Mode().Type() != os.ModeSocket {
		ts.Fatalf("%s is %v; want a socket of mode %s", args[0], info.Mode(), args[1])
	}
}

func gone(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 1, 1)
	var pids []int
	for _, field := range strings.Fields(args[0]) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	testkit.Until(ts, args[0]+" is gone", func() bool {
		if len(pids) > 0 {
			return !slices.ContainsFunc(pids, runs)
		}
		_, err := os.Lstat(ts.MkAbs(args[0]))
		return os.IsNotExist(err)
	})
}

// runs says whether the process exists and is no zombie.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func children(ts *testscript.TestScript, neg bool, args []string) {
	script.Need(ts, neg, args, 2, 3)
	pid := worldOf(ts).daemon(ts, args[0]).cmd.Process.Pid
	var found []string
	testkit.Until(ts, fmt.Sprintf("%s has %s children", args[0], args[1]), func() bool {
		found = nil
		for _, child := range testkit.Children(pid) {
			if child.State != "Z" {
				found = append(found, strconv.Itoa(child.PID))
			}
		}
		return strconv.Itoa(len(found)) == args[1]
	})
	if len(args) == 3 {
		ts.Setenv(args[2], strings.Join(found, " "))
	}
}
