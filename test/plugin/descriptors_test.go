package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// A host may close all its descriptors, as daemons do when they start, and then open files that get
// the same numbers. The plugin does not use or close these files. Its next call works.
func TestADescriptorThatTheHostHasReplacedIsNeitherUsedNorClosed(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Read", "Write", "Close", "Shutdown", "Descriptor", "Subject",
		"Wait", "NewClient", "Cancel", "fork"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			d, h, p, data := ready(t)
			read := h.start("Read", 1, 10) // makes the pipe of tls_Cancel
			h.untilAThreadWaits()
			puts(t, data, "x")
			read.reads("x")
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, []byte("the host's own"), 0o600); err != nil {
				t.Fatal(err)
			}
			// The plugin has 4 descriptors: the sockets for control and data, and both
			// ends of the pipe of tls_Cancel.
			if r := h.call("replace", file); r.N < 4 {
				t.Fatalf("the host has replaced %d descriptors; want at least 4",
					r.N)
			}
			fds := func() string {
				_, after, _ := strings.Cut(h.call("status").Text, "fds ")
				n, _, _ := strings.Cut(after, " ")
				return n
			}
			before := fds()
			const lost = "handle 1: lost: this program has closed descriptors of the " +
				"TLS plugin"
			switch op {
			case "Read":
				h.send("Read", 1, 10).fails("tls.Read: " + lost)
			case "Write":
				h.send("Write", 1, []byte("secret")).fails("tls.Write: " + lost)
			case "NewClient": // each case calls NewClient below
			case "Cancel":
				h.send("Cancel").gives(0, "")
			case "fork":
				h.send("fork").gives(0, "")
				if after := fds(); after != before {
					t.Errorf("the parent has %s descriptors, but the child "+
						"has %s; want the same", before, after)
				}
				h.send("exit")
				h.child().gives(0, "")
			case "Wait":
				h.send("Wait", -1).fails("tls.Wait: lost: ", "this program has "+
					"closed descriptors")
			case "Subject":
				h.send("Subject", 1).fails("tls.PeerCertSubject: " + lost)
			default:
				h.send(op, 1).fails("tls." + op + ": " + lost)
			}
			if after := fds(); after != before {
				t.Errorf("%s has changed the count of the host's descriptors "+
					"from %s to %s", op, before, after)
			}
			// The next call works at once.
			client := h.start("NewClient", "again", 1)
			p2, first := d.session()
			if first != 2 {
				t.Errorf("the new session begins with handle %d; want 2", first)
			}
			p2.result(p2.expect("tls.NewClient", `["again",1]`), "2")
			client.gives(2, "")
			h.send("Read", 1, 10).fails("tls.Read: " + lost)
			again := p2.shake(h, 2)
			read = h.start("Read", 2, 10)
			h.untilAThreadWaits()
			h.send("Cancel").gives(0, "") // through a new pipe
			read.fails("tls.Read: handle 2: cancelled by the caller")
			h.send("Write", 2, []byte("y")).gives(1, "")
			gets(t, again, "y")
			if text, err := os.ReadFile(file); err != nil ||
				string(text) != "the host's own" {
				t.Errorf("the host's file contains %q, %v; want \"the host's "+
					"own\"", text, err)
			}
			_ = p
		})
	}
}

// If a host has closed its standard streams, no descriptor of the plugin gets the number 0, 1 or 2.
func TestNoDescriptorOfThePluginIsAStandardStream(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	go serveOne(d)
	cmd := exec.Command(asan.program(t, "testdata/low.c"), asan.library(t), "h", "1", "")
	cmd.Env = append(append(os.Environ(), d.env(), "TLSD_AUTOSTART=0"),
		"ASAN_OPTIONS=detect_leaks=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("testdata/low.c fails: %v\n%s", err, out)
	}
}

// serveOne accepts a session, and runs serveEcho for it.
func serveOne(d *standIn) {
	conn, err := d.ln.AcceptUnix()
	if err != nil {
		return
	}
	defer conn.Close()
	serveEcho(newPeer(conn))
}

func TestForksWhileOtherThreadsTalkDisturbNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flavour *flavour
		rounds  int
	}{{plain, 1000}, {asan, 200}} {
		t.Run(c.flavour.name, func(t *testing.T) {
			t.Parallel()
			d := newStandIn(t)
			served := make(chan error, 1)
			go func() {
				// One session should serve all rounds. If the plugin opens another
				// one, it is served, too.
				var err error
				for sessions := 0; err == nil; sessions++ {
					var conn *net.UnixConn
					if conn, err = d.ln.AcceptUnix(); err != nil {
						if sessions > 0 && errors.Is(err, net.ErrClosed) {
							err = nil
						}
						break
					}
					// serveEcho fails if a child has sent a byte of its own.
					err = serveEcho(newPeer(conn))
					conn.Close()
				}
				served <- err
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 4*testkit.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, c.flavour.program(t, "testdata/forks.c"),
				c.flavour.library(t), "h", "1", "", fmt.Sprint(c.rounds))
			cmd.Env = append(append(os.Environ(), d.env(), "TLSD_AUTOSTART=0"),
				"ASAN_OPTIONS=detect_leaks=0")
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "done\n" {
				t.Errorf("testdata/forks.c: %v; want the output \"done\", got\n%s",
					err, out)
			}
			d.ln.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// converse goes through a whole conversation with a stand-in.
func converse(t *testing.T, d *standIn, h *host) {
	t.Helper()
	client := h.start("NewClient", "h", 1)
	p, _ := d.session()
	p.result(p.expect("tls.NewClient", `["h",1]`), "1")
	client.gives(1, "")
	data := p.shake(h, 1)
	h.send("Write", 1, []byte("hello")).gives(5, "")
	gets(t, data, "hello")
	read := h.start("Read", 1, 10)
	h.untilAThreadWaits()
	puts(t, data, "x")
	read.reads("x")
	read = h.start("Read", 1, 10)
	h.untilAThreadWaits()
	h.send("Cancel").gives(0, "")
	read.fails("tls.Read: handle 1: cancelled by the caller")
	closing := h.start("Close", 1)
	p.result(p.expect("tls.Close", "[1]"), "0")
	closing.gives(0, "")
}

// If a resource limit of the host is low, calls still work, and no signal such as SIGXFSZ ends the
// host.
func TestTheHostsLimitsDoNotRaiseSignals(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"--fsize=0", "--nofile=16", "--nproc=0", "--memlock=0",
		"--stack=262144", "--as=200000000", "--cpu=60", "--core=0", "--data=100000000"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			d := newStandIn(t)
			h := startHostWith(t, hostOptions{flavour: musl, env: []string{d.env()},
				wrapper: []string{testkit.Tool(t, "prlimit"), limit}})
			converse(t, d, h)
		})
	}
}

// In a sandbox that refuses system calls of the plugin, calls work or say what is missing.
func TestASandboxWithoutSomeSystemCallsIsNoTrap(t *testing.T) {
	t.Parallel()
	deny := plain.program(t, "testdata/deny.c")
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			list := fmt.Sprint(unix.SYS_MEMFD_CREATE, ",", unix.SYS_EVENTFD2, ",",
				unix.SYS_PIPE, ",", unix.SYS_PIPE2)
			list = strings.ReplaceAll(list, " ", "")
			d := newStandIn(t)
			h := startHostWith(t, hostOptions{flavour: plain, env: []string{d.env()},
				wrapper: []string{deny, fmt.Sprint(int(errno)), list}})
			converse(t, d, h)
		})
		t.Run("socketpair, "+errno.Error(), func(t *testing.T) {
			t.Parallel()
			d := newStandIn(t)
			h := startHostWith(t, hostOptions{flavour: plain, env: []string{d.env()},
				wrapper: []string{deny, fmt.Sprint(int(errno)),
					fmt.Sprint(unix.SYS_SOCKETPAIR)}})
			client := h.start("NewClient", "h", 1)
			p, _ := d.session()
			p.result(p.expect("tls.NewClient", `["h",1]`), "1")
			client.gives(1, "")
			h.send("Handshake", 1).fails("tls.Handshake: handle 1: limit: no " +
				"descriptor for the data of the connection: ")
			p.silent(h)
		})
	}
}

// If the host changes its effective user, its session is lost, and the next call opens a session of
// the new user.
func TestAChangedUserHasASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to be another user")
	}
	d, h, p, _ := ready(t)
	if err := firstError(os.Chmod(filepath.Dir(d.path), 0o755),
		os.Chmod(d.path, 0o666)); err != nil {
		t.Fatal(err)
	}
	h.send("seteuid", 65534).gives(0, "")
	const lost = "lost: the effective user of this program has changed"
	h.send("Read", 1, 10).fails("tls.Read: handle 1: " + lost)
	p.ended()
	client := h.start("NewClient", "again", 1)
	q, first := d.session()
	if first != 2 {
		t.Errorf("the new session begins with handle %d; want 2", first)
	}
	q.result(q.expect("tls.NewClient", `["again",1]`), "2")
	client.gives(2, "")
	h.send("seteuid", 0).gives(0, "")
	// This is the first call since the user has changed. The plugin must notice the change in a
	// NewClient, too.
	client = h.start("NewClient", "root again", 1)
	r, _ := d.session()
	r.result(r.expect("tls.NewClient", `["root again",1]`), "3")
	client.gives(3, "")
	h.send("Write", 2, []byte("x")).fails("tls.Write: handle 2: " + lost)
}

// A host may exit while its threads wait in calls. The data that it has written before still
// arrives.
func TestTheProgramMayExitWhileThreadsWait(t *testing.T) {
	t.Parallel()
	for _, f := range []*flavour{plain, asan, tsan} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			d := newStandIn(t)
			h := startHostWith(t, hostOptions{flavour: f, env: []string{d.env()}})
			client := h.start("NewClient", "h", 1)
			p, _ := d.session()
			p.result(p.expect("tls.NewClient", `["h",1]`), "1")
			client.gives(1, "")
			data := p.shake(h, 1)
			h.send("Write", 1, []byte("written")).gives(7, "")
			h.start("Read", 1, 10)
			h.start("WriteZeros", 1, 16<<20)
			h.untilAThreadWaits()
			h.start("Handshake", 2)
			p.expect("tls.Handshake", "[2,1]")
			h.send("quit")
			testkit.Receive(t, h.Left, "the host ends")
			gets(t, data, "written")
		})
	}
}

// If a host loads two copies of the library, each has a session and descriptors of its own.
func TestTheLibraryUnderTwoNamesIsTwoLibraries(t *testing.T) {
	t.Parallel()
	d, h, p, data := ready(t)
	other := filepath.Join(t.TempDir(), "other.so")
	copyFile(t, asan.library(t), other)
	h.send("load", other).gives(0, "")
	client := h.start("NewClient", "second", 1)
	q, first := d.session()
	if first != 1 {
		t.Errorf("the session of the second library begins with handle %d; want 1", first)
	}
	q.result(q.expect("tls.NewClient", `["second",1]`), "1")
	client.gives(1, "")
	again := q.shake(h, 1)
	h.send("Write", 1, []byte("two")).gives(3, "")
	gets(t, again, "two")
	h.send("fork").gives(0, "") // in the child, each library closes its own descriptors
	h.send("exit")
	h.child().gives(0, "")
	_, _ = p, data
}
