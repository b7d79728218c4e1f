// Package admin tests those subcommands of tlsshim that are for administrators. They talk to the
// real daemon. The daemon's sessions talk to a TLS server of crypto/tls.
package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/admin"
	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

func TestMain(m *testing.M) { testd.Main(m) }

// watched is a daemon with an admin socket.
type watched struct {
	*testd.Daemon
	t     *testing.T
	admin string // the path of the admin socket
}

func start(t *testing.T, flags ...string) *watched {
	t.Helper()
	return startWith(t, testd.Options{Flags: flags})
}

func startWith(t *testing.T, o testd.Options) *watched {
	t.Helper()
	dir := testkit.Dir(t)
	if o.UID != 0 {
		testkit.Must(t, os.Chown(dir, int(o.UID), int(o.UID)))
	}
	path := filepath.Join(dir, "admin")
	o.Flags = append(o.Flags, "--admin-socket="+path)
	return &watched{testd.StartWith(t, o), t, path}
}

// outcome is the exit status and the output of tlsshim.
type outcome struct {
	status         int
	stdout, stderr string
}

// shim runs tlsshim with a subcommand and its arguments, on the daemon's admin socket.
func (d *watched) shim(args ...string) outcome {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, testd.Exe(d.t, "tlsshim"),
		append(args, "--admin-socket", d.admin)...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{"PATH=/nonexistent"}, &stdout, &stderr
	_ = cmd.Run() // the caller checks the exit status
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// d.must runs a subcommand and returns its standard output. It ends the test if the subcommand
// fails or writes to standard error.
func (d *watched) must(args ...string) string {
	d.t.Helper()
	got := d.shim(args...)
	if got.status != 0 || got.stderr != "" {
		d.t.Fatalf("tlsshim %q: %+v; want status 0, and nothing on standard "+
			"error", args, got)
	}
	return got.stdout
}

// d.says repeats a subcommand until its output has all the texts in want. d.says returns this
// output.
func (d *watched) says(args []string, want ...string) (got string) {
	d.t.Helper()
	testkit.Until(d.t, strings.Join(args, " ")+" prints all of: "+strings.Join(want, ", "),
		func() bool {
			got = d.shim(args...).stdout
			for _, w := range want {
				if !strings.Contains(got, w) {
					return false
				}
			}
			return true
		})
	return got
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("this must be JSON: %q: %v", text, err)
	}
}

// echo is a TLS server that sends back what it gets.
type echo struct {
	host string
	port int
	ca   *testcert.CA
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	ca := testcert.NewCA(t, "Test CA")
	leaf := ca.Issue(t, testcert.Leaf{CN: "an echo", IPs: []string{"127.0.0.1"}})
	return &echo{"127.0.0.1", testkit.Echo(t, leaf.TLS()), ca}
}

// connect connects the session c to the server, and does the handshake.
func (e *echo) connect(t *testing.T, c *client.Client) client.Handle {
	t.Helper()
	if err := c.SetCaBundle(t.Context(), e.ca.File); err != nil {
		t.Fatal(err)
	}
	h, err := c.NewClient(t.Context(), e.host, e.port)
	if err == nil {
		err = c.Handshake(t.Context(), h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// talk sends a text to an echo server, and reads until the same text has come back.
func talk(t *testing.T, c *client.Client, h client.Handle, text string) {
	t.Helper()
	if _, err := c.Write(t.Context(), h, []byte(text)); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != text; {
		data, err := c.Read(t.Context(), h, 100)
		if got += string(data); err != nil || len(data) == 0 ||
			!strings.HasPrefix(text, got) {
			t.Fatalf("the server has sent back %q, %v; want %q", got, err, text)
		}
	}
}

// worker returns the process ID of the first session's worker.
func worker(t *testing.T, d *watched) int {
	t.Helper()
	var list []admin.Session
	decode(t, d.must("sessions", "--json"), &list)
	if len(list) == 0 {
		t.Fatal("there is no session")
	}
	return list[0].Worker
}

// serve makes the session c a TLS server, and connects a client of crypto/tls with TLS 1.2. The
// client stays connected until the test ends.
func serve(t *testing.T, c *client.Client) {
	t.Helper()
	cert := testcert.SelfSigned(t, testcert.Leaf{CN: "a server", IPs: []string{"127.0.0.1"}})
	ctx, err := c.NewServerContext(t.Context(), cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	port := testkit.Port(t)
	accepted := make(chan error, 1)
	go func() { _, err := c.Accept(t.Context(), ctx, "127.0.0.1", port); accepted <- err }()
	testd.AwaitListener(t, port)
	conn, err := tls.Dial("tcp", testkit.Addr(port),
		&tls.Config{RootCAs: cert.Pool(), MaxVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
}
