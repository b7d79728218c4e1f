package peers

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/rpc/client"
)

// An ours is a way to our connections: the Go client, or the plugin, and behind it a daemon.
type ours interface {
	String() string
	dial(t *testing.T, port int, ca string) (stream, error)
	listen(t *testing.T, cert *testcert.Cert) listener
}

type listener interface {
	port() int
	accept() (stream, error)
}

// A stream is a connection of ours, after its handshake.
type stream interface {
	io.ReadWriteCloser
	version() string
}

// viaClient is rpc/client.
type viaClient struct{ d *testd.Daemon }

func (viaClient) String() string { return "tlsd" }

func (o viaClient) dial(t *testing.T, port int, ca string) (stream, error) {
	ctx, c := bounded(t), o.d.Dial(t)
	if err := c.SetCaBundle(ctx, ca); err != nil {
		return nil, err
	}
	h, err := c.NewClient(ctx, "localhost", port)
	if err == nil {
		err = c.Handshake(ctx, h)
	}
	return &clientStream{t, ctx, c, h}, err
}

func (o viaClient) listen(t *testing.T, cert *testcert.Cert) listener {
	t.Helper()
	l := &clientListener{t: t, ctx: bounded(t), c: o.d.Dial(t), p: testd.Port(t)}
	var err error
	l.h, err = l.c.NewServerContext(l.ctx, cert.CertFile, cert.KeyFile)
	must(t, err)
	// tlsd listens from the first Accept on. This one is cancelled; clients that come wait for the next.
	ctx, cancel := context.WithCancel(l.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := l.c.Accept(ctx, l.h, "127.0.0.1", l.p)
		ended <- err
	}()
	testd.AwaitListener(t, l.p)
	cancel()
	if err := failure(<-ended); err == nil || err.Kind != client.KindCancelled {
		t.Fatalf("an Accept that was cancelled: %v", err)
	}
	return l
}

type clientListener struct {
	t   *testing.T
	ctx context.Context
	c   *client.Client
	h   client.Handle
	p   int
}

func (l *clientListener) port() int { return l.p }

func (l *clientListener) accept() (stream, error) {
	h, err := l.c.Accept(l.ctx, l.h, "127.0.0.1", l.p)
	return &clientStream{l.t, l.ctx, l.c, h}, err
}

type clientStream struct {
	t   *testing.T
	ctx context.Context
	c   *client.Client
	h   client.Handle
}

func (s *clientStream) Read(p []byte) (int, error) {
	data, err := s.c.Read(s.ctx, s.h, min(len(p), 1<<24))
	if err != nil {
		return 0, err
	}
	if len(data) == 0 {
		return 0, io.EOF
	}
	return copy(p, data), nil
}

func (s *clientStream) Write(p []byte) (int, error) { return s.c.Write(s.ctx, s.h, p) }
func (s *clientStream) Close() error                { return s.c.CloseConn(s.ctx, s.h) }

func (s *clientStream) version() string {
	v, err := s.c.Version(s.ctx, s.h)
	if err != nil {
		s.t.Error(err)
	}
	return v
}

// failure is the error of a call, or nil if it is none of tlsd's.
func failure(err error) *client.Error {
	var e *client.Error
	errors.As(err, &e)
	return e
}

// viaPlugin is TlsPlugin.so in testdata/pipe.c.
type viaPlugin struct{ d *testd.Daemon }

func (viaPlugin) String() string { return "plugin" }

func (o viaPlugin) run(t *testing.T, args ...string) *process {
	t.Helper()
	return startWith(t, []string{"TLSD_SOCKET=" + o.d.Socket, "TLSD_AUTOSTART=0"}, pipe(t), append([]string{testd.Plugin(t)}, args...)...)
}

func (o viaPlugin) dial(t *testing.T, port int, ca string) (stream, error) {
	p := o.run(t, "client", strconv.Itoa(port), ca)
	return pipeStream{p}, p.expect("ready")
}

func (o viaPlugin) listen(t *testing.T, cert *testcert.Cert) listener {
	t.Helper()
	l := pipeListener{testd.Port(t), nil}
	l.process = o.run(t, "server", strconv.Itoa(l.p), cert.CertFile, cert.KeyFile)
	testd.AwaitListener(t, l.p)
	return l
}

type pipeListener struct {
	p int
	*process
}

func (l pipeListener) port() int               { return l.p }
func (l pipeListener) accept() (stream, error) { return pipeStream{l.process}, l.expect("ready") }

type pipeStream struct{ *process }

func (s pipeStream) version() string {
	_, v, _ := strings.Cut(s.said(), "ready ")
	v, _, _ = strings.Cut(v, "\n")
	return v
}

// Close is tls_Close, and looks at what the process has said of its end.
func (s pipeStream) Close() error {
	if err := s.end(); err != nil {
		return err
	}
	if !strings.Contains(s.said(), "ended: clean") {
		return errors.New(s.said())
	}
	return nil
}

var built struct {
	once sync.Once
	file string
	err  error
}

// pipe builds testdata/pipe.c, unless TLSD_TEST_BIN has it, and gives its path.
func pipe(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("TLSD_TEST_BIN"); dir != "" {
		return filepath.Join(dir, "pipe")
	}
	built.once.Do(func() {
		built.file = filepath.Join(filepath.Dir(testd.Plugin(t)), "pipe")
		out, err := exec.Command("cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-I../../cmd/tlsshim/plugin",
			"-o", built.file, "testdata/pipe.c", "-ldl", "-pthread").CombinedOutput()
		if err != nil {
			built.err = errors.New(err.Error() + "\n" + string(out))
		}
	})
	must(t, built.err)
	return built.file
}
