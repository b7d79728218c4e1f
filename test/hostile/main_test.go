// Package hostile breaks things around a running tlsd on purpose. It checks that everything
// unrelated goes on, and that nothing is left over.
//
// The environment: no descriptors, a full disk, a log that nobody reads, callers that die in the
// middle of a message, callers that do not read, the socket's file removed or replaced, many
// daemons on one path. The network: bad clients of an accepting session, and bad servers. The
// machine's users: a user that stops its workers, and a debugger that traces the workers.
//
// tlsd is the real daemon with the system's libssl. Peers are raw bytes or crypto/tls, on loopback.
package hostile

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

func TestMain(m *testing.M) {
	if os.Getenv(callerEnv) != "" {
		os.Exit(playCaller(os.Args[1:]))
	}
	if os.Getenv(tracerEnv) != "" {
		fmt.Println(playTracer(os.Args[1:]))
		return
	}
	if play := os.Getenv(userEnv); play != "" {
		os.Exit(playUser(play, os.Args[1]))
	}
	testd.Main(m)
}

// modes has the flags of both kinds of isolation, by name.
var modes = map[string][]string{
	"session": {"--isolation=session"},
	"shared":  {"--isolation=shared", "--workers=1"},
}

// overModes runs a subtest for each mode, with a daemon of its own.
func overModes(t *testing.T, flags []string, body func(t *testing.T, d *testd.Daemon)) {
	t.Helper()
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body(t, testd.Start(t, append(flags, mode...)...))
		})
	}
}

// failed checks that err has the given kind. Each string in says must be in the error's text, or be
// its errno.
func failed(t *testing.T, err error, kind client.Kind, says ...string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("the call returns %v (%+v); want an error of kind %s", err, e, kind)
	}
	for _, text := range says {
		if !strings.Contains(e.Message, text) && e.Data.Errno != text {
			t.Errorf("the error %q (errno %q) does not say %q", e.Message,
				e.Data.Errno, text)
		}
	}
}

// A world has the certificates that most tests need.
type world struct {
	ca   *testcert.CA
	cert *testcert.Cert // for localhost and 127.0.0.1
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := testcert.NewCA(t, "Test CA")
	return &world{ca, ca.Localhost(t)}
}

// echo starts a TLS server that sends back all that it receives. open returns the number of its
// open connections.
func (w *world) echo(t *testing.T) (port int, open func() int) {
	t.Helper()
	var conns atomic.Int64
	port = testkit.Serve(t, func(nc net.Conn) {
		conns.Add(1)
		defer conns.Add(-1)
		c := tls.Server(nc, w.cert.Config())
		defer c.Close()
		io.Copy(c, c)
	})
	return port, func() int { return int(conns.Load()) }
}

// A talk is a session's connection to an echo server.
type talk struct {
	c *client.Client
	h client.Handle
}

// talk connects the session c to the echo server at port. The session then trusts w.ca.
func (w *world) talk(t *testing.T, c *client.Client, port int) talk {
	t.Helper()
	ctx := testkit.Bounded(t)
	testkit.Must(t, c.SetCaBundle(ctx, w.ca.File))
	h, err := c.NewClient(ctx, "127.0.0.1", port)
	testkit.Must(t, err)
	testkit.Must(t, c.Handshake(ctx, h))
	tk := talk{c, h}
	tk.works(t)
	return tk
}

// works checks that the connection still carries data in both directions.
func (tk talk) works(t *testing.T) {
	t.Helper()
	ctx := testkit.Bounded(t)
	const text = "there and back"
	_, err := tk.c.Write(ctx, tk.h, []byte(text))
	testkit.Must(t, err)
	var got []byte
	for len(got) < len(text) {
		p, err := tk.c.Read(ctx, tk.h, 100)
		testkit.Must(t, err)
		if len(p) == 0 {
			t.Fatal("the connection ended before the echo server had sent all back")
		}
		got = append(got, p...)
	}
	if string(got) != text {
		t.Fatalf("the echo server sends back %q, want %q", got, text)
	}
}

// serves checks that the daemon serves a new session.
func serves(t *testing.T, d *testd.Daemon) {
	t.Helper()
	c := d.Dial(t)
	b, err := c.Backend(testkit.Bounded(t))
	testkit.Must(t, err)
	if b != "openssl" {
		t.Fatalf("tls.Backend returns %q, want \"openssl\"", b)
	}
	testkit.Must(t, c.Close())
}

// workerOf returns the process id of the worker that serves a session.
func workerOf(t *testing.T, c *client.Client) int {
	t.Helper()
	hello, err := c.Hello(testkit.Bounded(t))
	testkit.Must(t, err)
	return hello.Server.PID
}

// rawDial connects to the daemon's socket, and sends nothing.
func rawDial(t *testing.T, d *testd.Daemon) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.Socket, Net: "unix"})
	testkit.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	return conn
}

// workers waits until the daemon has exactly n children, and no zombie among them.
func workers(t *testing.T, d *testd.Daemon, n int) {
	t.Helper()
	testkit.Until(t, fmt.Sprintf("the daemon has %d workers and no zombie", n),
		func() bool {
			got := testkit.Children(d.PID)
			return len(got) == n && !slices.ContainsFunc(got, zombie)
		})
}

func zombie(c testkit.Child) bool { return c.State == "Z" }

// settled waits until a process has no more open descriptors than it had before.
func settled(t *testing.T, pid, before int) {
	t.Helper()
	testkit.Until(t, fmt.Sprintf("process %d has no more than %d descriptors", pid,
		before), func() bool {
		return len(testkit.OpenFiles(t, pid)) <= before
	})
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// isReset says whether the other side has closed the connection before it had read everything.
func isReset(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// start runs a command, and kills it at the end of the test. ended is closed when the command has
// ended.
func start(t *testing.T, cmd *exec.Cmd) (ended <-chan struct{}) {
	t.Helper()
	gone := make(chan struct{})
	testkit.Must(t, testd.Spawn(cmd, func() { cmd.Wait(); close(gone) }))
	t.Cleanup(func() { cmd.Process.Kill(); <-gone })
	return gone
}
