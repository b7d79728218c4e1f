package plugin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Hosts use the real tlsd.

// A daemon is a running tlsd, the real one.
type daemon struct {
	path, log string
	flags     []string
	cmd       *exec.Cmd
}

func (d *daemon) env() string { return "TLSD_SOCKET=" + d.path }

func (d *daemon) logged(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(d.log)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func tlsdProgram(t *testing.T) string {
	t.Helper()
	out := filepath.Join(workDir, "tlsd")
	cmd := exec.Command(testkit.Tool(t, "go"), "build", "-o", out, "tlsd/cmd/tlsd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build(t, out, cmd)
}

// startTLSD starts a tlsd. At the end of the test, SIGTERM must end it without an error.
func startTLSD(t *testing.T, flags ...string) *daemon {
	t.Helper()
	dir := nowhere(t)
	d := &daemon{path: filepath.Join(dir, "tlsd.sock"), log: filepath.Join(dir, "log"),
		flags: flags}
	d.start(t)
	t.Cleanup(func() {
		if err := d.stop(syscall.SIGTERM); err != nil {
			t.Errorf("after SIGTERM, tlsd ends with %v; want no error", err)
		}
		if t.Failed() {
			t.Logf("tlsd says\n%s", d.logged(t))
		}
	})
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ready, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command(tlsdProgram(t),
		append([]string{"--socket", d.path, "--ready-fd", "3", "--log-format", "json"},
			d.flags...)...)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.cmd = cmd
	w.Close()
	ready.SetReadDeadline(time.Now().Add(testkit.Patience))
	if line, err := io.ReadAll(ready); err != nil || string(line) != "\n" {
		t.Fatalf("tlsd must write a line feed when it is ready; it wrote %q, %v\n%s",
			line, err, d.logged(t))
	}
}

// stop sends these signals to the daemon, and waits for its end.
func (d *daemon) stop(signals ...syscall.Signal) error {
	for _, sig := range signals {
		d.cmd.Process.Signal(sig)
	}
	kill := time.AfterFunc(testkit.Patience, func() { d.cmd.Process.Kill() })
	defer kill.Stop()
	return d.cmd.Wait()
}

// echo returns a CA file and the port of an echo server with a certificate of that CA.
func echo(t *testing.T) (ca string, port int) {
	t.Helper()
	return serving(t, func(conn *tls.Conn) { io.Copy(conn, conn) })
}

// connected starts a host that has a connection to a server of this CA, as handle 1.
func connected(t *testing.T, ca string, port int, env ...string) *host {
	t.Helper()
	h := startHost(t, env...)
	h.send("SetCaBundle", ca).gives(0, "")
	h.send("NewClient", "localhost", port).gives(1, "")
	h.send("Handshake", 1).gives(0, "")
	return h
}

func TestHostsOfEachLanguageTalkToARealServer(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca, port := echo(t)
	const conversation = "backend openssl\npeer /CN=localhost TLSv1.3\necho True\nthen " +
		"tls.Read: handle %d"
	first, second := fmt.Sprintf(conversation, 1), fmt.Sprintf(conversation, 2)
	for _, c := range []struct {
		name, script string
		want         string
	}{
		{"python3", "client.py", first + "\n" + second + "\nchild 0\n"},
		{"luajit", "client.lua", first + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			script, err := filepath.Abs("testdata/" + c.script)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, testkit.Tool(t, c.name), script,
				plain.library(t), "localhost", strconv.Itoa(port),
				filepath.Base(ca))
			cmd.Dir = filepath.Dir(ca) // the path of the CA file is relative to it
			cmd.Env = append(os.Environ(), d.env(), "TLSD_AUTOSTART=0")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			out = regexp.MustCompile(`(?m)(^then .*handle \d+): .*`).ReplaceAll(out,
				[]byte("$1"))
			if err != nil || string(out) != c.want {
				t.Errorf("the client in %s ends with %v and prints\n%s%s\nwant\n%s",
					c.name, err, out, stderr.String(), c.want)
			}
		})
	}

	t.Run("C", func(t *testing.T) {
		t.Parallel()
		h := startHost(t, d.env())
		h.send("chdir", filepath.Dir(ca)).gives(0, "")
		h.send("SetCaBundle", filepath.Base(ca)).gives(0, "")
		before := h.call("status").Text
		if r := h.call("Version", 0); !strings.HasPrefix(r.Text, "OpenSSL ") {
			t.Errorf("Version(0) gives %q; want OpenSSL and its version", r.Text)
		}
		h.send("NewClient", "localhost", port).gives(1, "")
		h.send("Write", 1, []byte("a")).fails("tls.Write: handle 1: ")
		h.send("Handshake", 1).gives(0, "")
		h.send("Handshake", 1).gives(0, "")
		h.send("PeerCertSubject", 1).gives(13, "/CN=localhost")
		h.send("Version", 1).gives(7, "TLSv1.3")
		h.send("Write", 1, []byte{}).gives(0, "")
		h.send("Write", 1, []byte("hello")).gives(5, "")
		h.send("Read", 1, 4096).reads("hello")

		h.send("NewClient", "127.0.0.1", port).gives(2, "")
		h.send("SetInsecureSkipVerify", 2, 1).gives(0, "")
		h.send("Handshake", 2).gives(0, "")
		h.send("Close", 2).gives(0, "")
		h.send("Close", 2).fails("tls.Close: handle 2: ")
		h.send("Write", 99, []byte{}).fails("tls.Write: handle 99: ")
		h.send("NewClient", "localhost", 0).fails("tls.NewClient: port")
		h.send("SetCaBundle", "missing.pem").fails("tls.SetCaBundle: ",
			filepath.Dir(ca)+"/missing.pem")
		h.send("Close", 1).gives(0, "")
		if after := h.call("status").Text; after != before {
			t.Errorf("the closes have left something behind; before\n%s\nafter\n%s",
				before, after)
		}
	})
}

func TestAServerScriptServesACryptoTLSClient(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Localhost(t)
	port := testkit.Port(t)
	h := startHost(t, d.env())
	h.send("chdir", filepath.Dir(cert.CertFile)).gives(0, "")
	h.send("NewServerContext", filepath.Base(cert.CertFile),
		filepath.Base(cert.KeyFile)).gives(1, "")
	accept := h.start("Accept", 1, "127.0.0.1", port)

	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
	conn := dial(t, port, config)
	accept.gives(2, "")
	if _, err := conn.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	h.send("Read", 2, 100).reads("request")
	h.send("Write", 2, []byte("answer")).gives(6, "")
	h.send("Close", 2).gives(0, "")
	if got, err := io.ReadAll(conn); err != nil || string(got) != "answer" {
		t.Errorf("the client reads %q, %v; want \"answer\", and no error", got, err)
	}

	waiting := h.start("Accept", 1, "127.0.0.1", port)
	other := h.start("Accept", 1, "127.0.0.1", port)
	dial(t, port, config).Close()
	// One of the two gets the client. The other waits until the context is closed.
	first, second := waiting, other
	select {
	case r := <-waiting.Result():
		waiting.Result() <- r
	case r := <-other.Result():
		other.Result() <- r
		first, second = other, waiting
	case <-time.After(testkit.Patience):
		t.Fatal("a client has connected, and neither of the two Accepts returns")
	}
	if r := first.wait(); r.N < 3 {
		t.Errorf("Accept gives %d, %q; want a handle from 3 on", r.N, r.Text)
	}
	h.send("CloseServerContext", 1).gives(0, "")
	second.fails("tls.Accept: handle 1: ")
}

// dial connects to the port. If nothing listens there yet, it tries again.
func dial(t *testing.T, port int, config *tls.Config) *tls.Conn {
	t.Helper()
	for end := time.Now().Add(testkit.Patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := tls.Dial("tcp", testkit.Addr(port), config)
		if err == nil {
			conn.SetDeadline(time.Now().Add(testkit.Patience))
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestACloseEndsARealReadAtOnce(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca, port := echo(t)
	h := connected(t, ca, port, d.env())
	reads := []*pending{h.start("Read", 1, 10), h.start("Read", 1, 10)}
	// the Reads are likely to wait by now; the result is the same if they do not
	h.send("Write", 1, []byte{}).gives(0, "")
	h.send("Close", 1).gives(0, "")
	for _, r := range reads {
		r.fails("tls.Read: handle 1: ")
	}
}

func TestTheHostIsToldWhatTheWorkerDiedOf(t *testing.T) {
	t.Parallel()
	for sig, why := range map[syscall.Signal]string{
		syscall.SIGSEGV: "died of SIGSEGV", syscall.SIGABRT: "died of SIGABRT",
		syscall.SIGKILL: "was killed (SIGKILL)",
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			d := startTLSD(t)
			ca, port := echo(t)
			h := connected(t, ca, port, d.env())
			read := h.start("Read", 1, 10)
			killWorker(t, d, sig)
			read.fails("tls.Read: handle 1: lost: the worker of this session " + why)
			h.send("Read", 1, 10).fails("tls.Read: handle 1: lost: the worker of " +
				"this session " + why)
		})
	}
}

// worker returns the pid of the process that serves the daemon's latest session. The pid is in the
// daemon's log. tlsd may write an entry of the log later than it answers calls of the session. So
// worker waits until the latest entry names a process that runs.
func (d *daemon) worker(t *testing.T) (pid int) {
	t.Helper()
	testkit.Until(t, "tlsd's log names the worker of the latest session", func() bool {
		pid = 0
		for line := range strings.Lines(d.logged(t)) {
			var entry struct {
				Msg    string
				Worker int
			}
			if json.Unmarshal([]byte(line), &entry) == nil &&
				entry.Msg == "session started" {
				pid = entry.Worker
			}
		}
		return pid != 0 && syscall.Kill(pid, 0) == nil
	})
	return pid
}

func killWorker(t *testing.T, d *daemon, sig syscall.Signal) {
	t.Helper()
	pid := d.worker(t)
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
	awaitDeath(t, pid)
}

// awaitDeath waits until a process has ended and was reaped.
func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	testkit.Until(t, fmt.Sprintf("process %d has ended", pid), func() bool {
		return syscall.Kill(pid, 0) != nil
	})
}

// A host forks while one of its threads waits in Read. The child makes a connection of its own, and
// then the parent's Read still gets its data.
func TestForkInTheMiddleWithARealTLSD(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca, port := echo(t)
	h := connected(t, ca, port, d.env())
	read := h.start("Read", 1, 100)

	h.send("fork").gives(0, "")
	h.send("Write", 1, []byte("a")).fails("tls.Write: handle 1: no such handle")
	h.send("NewClient", "localhost", port).gives(2, "")
	h.send("Handshake", 2).gives(0, "")
	h.send("Write", 2, []byte("child")).gives(5, "")
	h.send("Read", 2, 100).reads("child")
	h.send("exit")
	h.child().gives(0, "")

	h.send("Write", 1, []byte("parent")).gives(6, "")
	read.reads("parent")
	h.send("Close", 1).gives(0, "")
}

func TestMuchDataThroughARealTLSD(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca, port := echo(t)
	memcheck := func(t *testing.T) []string {
		return valgrind(t, "--leak-check=full", "--errors-for-leak-kinds=definite,possible")
	}
	for _, c := range []struct {
		name         string
		flavour      *flavour
		wrapper      func(t *testing.T) []string
		conns        int
		bytes, chunk int
	}{
		{"one connection", plain, nil, 1, 64 << 20, 1<<20 + 1},
		{"eight connections", asan, nil, 8, 2 << 20, 300_001},
		{"eight connections, thread sanitizer", tsan, nil, 8, 1 << 20, 100_001},
		{"eight connections, memcheck", plain, memcheck, 8, 300_000, 50_001},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := hostOptions{flavour: c.flavour, env: []string{d.env()}}
			if c.wrapper != nil {
				o.wrapper = c.wrapper(t)
			}
			runBulk(t, o, "localhost", port, ca, c.conns, c.bytes, c.chunk)
		})
	}
}

// countDaemons counts the processes that were started with this socket.
func countDaemons(t *testing.T, socket string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	testkit.Must(t, err)
	for _, file := range files {
		// A process that has ended meanwhile has no file any more.
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), socket) {
			n++
		}
	}
	return n
}

// Four hosts call at the same time, and no tlsd runs. Each call gets a session, all of the same
// tlsd. When the hosts have ended, tlsd ends, too.
func TestFourHostsAtOnceGetAPrivateTLSD(t *testing.T) {
	t.Parallel()
	dir := nowhere(t)
	// A private tlsd without sessions ends after a minute. This one ends after 3 s.
	exe := filepath.Join(dir, "tlsd")
	if err := testd.WriteProgram(exe,
		[]byte("#!/bin/sh\nexec "+tlsdProgram(
			t)+` "$@" --idle-exit 3s`+"\n")); err != nil {
		t.Fatal(err)
	}
	ca, port := echo(t)
	socket, log := filepath.Join(dir, "tlsd.sock"), filepath.Join(dir, "log")
	env := []string{"TLSD_AUTOSTART=", "XDG_RUNTIME_DIR=" + dir, "TLSD_EXE=" + exe,
		"TLSD_LOG=" + log}
	var hosts []*host
	var calls []*pending
	for range 4 {
		hosts = append(hosts, startHostWith(t, hostOptions{flavour: plain, env: env}))
	}
	for _, h := range hosts {
		calls = append(calls, h.start("SetCaBundle", ca))
	}
	for i, h := range hosts {
		calls[i].gives(0, "")
		h.send("NewClient", "localhost", port).gives(1, "")
		h.send("Handshake", 1).gives(0, "")
	}
	// Each host may have started a tlsd, but a tlsd without a session soon ends.
	testkit.Until(t, "one tlsd serves the four hosts", func() bool {
		return countDaemons(t, socket) == 1
	})
	for _, h := range hosts {
		h.send("exit")
	}
	gone(t, socket)
	if t.Failed() {
		text, _ := os.ReadFile(log)
		t.Logf("tlsd says\n%s", text)
	}
}
