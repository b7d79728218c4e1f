package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Foreign programs that ask our server for a page, and our side of their connections.

// The type mine is our side: a session with a daemon, through rpc/client.
type mine struct {
	*client.Client
	t   *testing.T
	ctx context.Context
}

func newMine(t *testing.T, d *testd.Daemon) mine {
	t.Helper()
	return mine{d.Dial(t), t, testkit.Bounded(t)}
}

// context makes a server context that listens on a free port of 127.0.0.1. The parameter options
// has names of options, each followed by its value.
func (m mine) context(cert *testcert.Cert, options ...string) (ctx client.Handle, port int) {
	m.t.Helper()
	ctx, err := m.NewServerContext(m.ctx, cert.CertFile, cert.KeyFile)
	testkit.Must(m.t, err)
	m.set(ctx, options...)
	port, err = m.Listen(m.ctx, ctx, "127.0.0.1", 0)
	testkit.Must(m.t, err)
	return ctx, port
}

// dial connects to localhost, without a handshake.
func (m mine) dial(port int, options ...string) client.Handle {
	m.t.Helper()
	h, err := m.NewClient(m.ctx, "localhost", port)
	testkit.Must(m.t, err)
	m.set(h, options...)
	return h
}

func (m mine) set(h client.Handle, options ...string) {
	m.t.Helper()
	for i := 0; i < len(options); i += 2 {
		testkit.Must(m.t, m.SetOption(m.ctx, h, options[i], options[i+1]))
	}
}

func (m mine) fact(h client.Handle, name string) string {
	m.t.Helper()
	text, err := m.HandleInfo(m.ctx, h, name)
	testkit.Must(m.t, err)
	return text
}

// wants checks facts of tls.Info. The parameter facts has names, each followed by the text that the
// fact must have.
func (m mine) wants(h client.Handle, facts ...string) {
	m.t.Helper()
	for i := 0; i < len(facts); i += 2 {
		if got := m.fact(h, facts[i]); got != facts[i+1] {
			m.t.Errorf("tls.Info gives %s as %q, want %q", facts[i], got, facts[i+1])
		}
	}
}

// failed checks that a call has failed with an error of this kind and text.
func failed(t *testing.T, err error, kind client.Kind, says string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(e.Message, says) {
		t.Errorf("the call returns %v; want an error of kind %s with the text %q", err,
			kind, says)
	}
}

const ourPage = "this is a page of ours\n"

// answer reads a request and answers with our page.
func (m mine) answer(h client.Handle) error {
	for got := ""; !strings.Contains(got, "\n\r\n"); {
		data, err := m.Read(m.ctx, h, 1<<12)
		if err == nil && len(data) == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		got += string(data)
	}
	const head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
	if _, err := m.Write(m.ctx, h, []byte(head+ourPage)); err != nil {
		return err
	}
	return m.CloseConn(m.ctx, h)
}

// A visitor is a program that asks a server for a page.
type visitor struct {
	name string
	tool string
	args func(port int, host, ca string, cert *testcert.Cert) []string // cert may be nil
	// the program gets its request from standard input
	asks bool
}

var visitors = []visitor{
	{"curl", "curl", func(port int, host, ca string, cert *testcert.Cert) []string {
		args := []string{"--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert",
			ca,
			"--resolve", fmt.Sprintf("%s:%d:127.0.0.1", host, port), fmt.Sprintf("https://%s:%d/", host, port)}
		if cert != nil {
			args = append(args, "--cert", cert.CertFile, "--key", cert.KeyFile)
		}
		return args
	}, false},
	{"openssl", "openssl", func(port int, host, ca string, cert *testcert.Cert) []string {
		args := []string{"s_client", "-quiet", "-connect", testkit.Addr(port),
			"-servername", host,
			"-CAfile", ca, "-verify_return_error", "-verify_hostname", host}
		if cert != nil {
			args = append(args, "-cert", cert.CertFile, "-cert_chain", cert.CertFile,
				"-key", cert.KeyFile)
		}
		return args
	}, true},
	{"GnuTLS", "gnutls-cli", func(port int, host, ca string, cert *testcert.Cert) []string {
		args := []string{"--port=" + strconv.Itoa(port), "--sni-hostname=" + host,
			"--verify-hostname=" + host, "--x509cafile=" + ca, "--logfile=/dev/stderr"}
		if cert != nil {
			args = append(args, "--x509certfile="+cert.CertFile,
				"--x509keyfile="+cert.KeyFile)
		}
		return append(args, "127.0.0.1")
	}, true},
}

// visit runs the program. It returns the output, and an error if the program has failed.
func (v visitor) visit(port int, host, ca string, cert *testcert.Cert) (string, error) {
	question := ""
	if v.asks {
		question = "GET / HTTP/1.0\r\n\r\n"
	}
	return runTool(question, v.tool, v.args(port, host, ca, cert)...)
}

// runTool runs a program to its end, and returns its standard output. The program's input remains
// open until the program has ended. If the program fails, err contains what the program has written
// to standard error.
func runTool(input, name string, args ...string) (printed string, err error) {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/nonexistent"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	in, ours, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer ours.Close()
	cmd.Stdin = in
	var ended error
	done := make(chan struct{})
	err = testd.Spawn(cmd, func() {
		ended = cmd.Wait()
		close(done)
	})
	in.Close()
	if err != nil {
		return "", err
	}
	_, _ = io.WriteString(ours, input) // fails if the program has ended already
	timer := time.AfterFunc(testkit.Patience, func() { cmd.Process.Kill() })
	<-done
	if !timer.Stop() {
		ended = fmt.Errorf("the program did not end within %v", testkit.Patience)
	}
	if ended != nil {
		return stdout.String(), fmt.Errorf("%s %q: %w\n%s", name, args, ended,
			stderr.String())
	}
	return stdout.String(), nil
}
