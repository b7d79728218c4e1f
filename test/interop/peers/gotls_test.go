package peers

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlsd/internal/ours"
	"tlsd/internal/testkit"
)

// cryptoTLS is Go's crypto/tls, in this process.
type cryptoTLS struct{}

func (cryptoTLS) String() string { return "crypto/tls" }
func (cryptoTLS) tool() string   { return "" }

func (cryptoTLS) config(t *testing.T, s setting) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(s.ca)
	testkit.Must(t, err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s has no certificates", s.ca)
	}
	cfg := &tls.Config{ServerName: "localhost", RootCAs: pool, ClientCAs: pool,
		MinVersion: s.version, MaxVersion: s.version}
	if s.cert != nil {
		cfg.Certificates = []tls.Certificate{s.cert.TLS()}
	}
	if s.group == "P-384" {
		cfg.CurvePreferences = []tls.CurveID{tls.CurveP384}
	}
	cfg.ClientAuth = map[string]tls.ClientAuthType{
		"": tls.NoClientCert, "optional": tls.VerifyClientCertIfGiven,
		"required": tls.RequireAndVerifyClientCert,
	}[s.ask]
	if s.resume {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return cfg
}

func (g cryptoTLS) client(t *testing.T, port int, s setting) talk {
	t.Helper()
	cfg := g.config(t, s)
	if s.resume {
		first := g.begin(t, port, cfg, s)
		first.Write([]byte("ticket")) // if it fails, the Copy fails, too
		_, err := io.Copy(io.Discard, first)
		testkit.Must(t, err)
		testkit.Must(t, first.end())
	}
	return g.begin(t, port, cfg, s)
}

func (cryptoTLS) begin(t *testing.T, port int, cfg *tls.Config, s setting) *goTalk {
	t.Helper()
	nc, err := net.DialTimeout("tcp", testkit.Addr(port), testkit.Patience)
	testkit.Must(t, err)
	g := newGoTalk(t, s)
	g.shake(nc, tls.Client(nc, cfg))
	return g
}

func (g cryptoTLS) server(t *testing.T, port int, s setting) talk {
	t.Helper()
	l, err := net.Listen("tcp", testkit.Addr(port))
	testkit.Must(t, err)
	l.(*net.TCPListener).SetDeadline(time.Now().Add(testkit.Patience))
	cfg, talk := g.config(t, s), newGoTalk(t, s)
	t.Cleanup(func() { l.Close() })
	go func() {
		nc, err := l.Accept()
		if err != nil {
			talk.err = err
			close(talk.shaken)
			return
		}
		talk.shake(nc, tls.Server(nc, cfg))
	}()
	return talk
}

type goTalk struct {
	most   int
	shaken chan struct{} // closed when conn or err is set
	conn   *tls.Conn
	err    error
}

func newGoTalk(t *testing.T, s setting) *goTalk {
	g := &goTalk{most: s.most, shaken: make(chan struct{})}
	t.Cleanup(func() {
		<-g.shaken
		if g.conn != nil {
			g.conn.NetConn().Close()
		}
	})
	return g
}

func (g *goTalk) shake(nc net.Conn, c *tls.Conn) {
	nc.SetDeadline(time.Now().Add(testkit.Patience))
	g.conn, g.err = c, nil
	go func() {
		defer close(g.shaken)
		g.err = c.Handshake()
		if g.err != nil {
			nc.Close()
		}
	}()
}

func (g *goTalk) Read(p []byte) (int, error) {
	if <-g.shaken; g.err != nil {
		return 0, g.err
	}
	return g.conn.Read(p)
}

func (g *goTalk) Write(p []byte) (n int, err error) {
	if <-g.shaken; g.err != nil {
		return 0, g.err
	}
	for n < len(p) && err == nil {
		piece := p[n:]
		if g.most > 0 {
			piece = piece[:min(len(piece), g.most)]
		}
		var m int
		m, err = g.conn.Write(piece)
		n += m
	}
	return n, err
}

func (g *goTalk) closeWrite() error { return g.conn.CloseWrite() }

func (g *goTalk) end() error {
	if <-g.shaken; g.err != nil {
		return g.err
	}
	return g.conn.Close()
}

// curl sends its data as the body of a request, and receives data as the body of the answer. It
// reads and writes files instead of pipes, so the function exchange has a case of its own for curl.
type curl struct{}

func (curl) String() string { return "curl" }
func (curl) tool() string   { return "curl" }

func (curl) client(t *testing.T, port int, s setting) talk {
	t.Helper()
	c := &curlTalk{dir: t.TempDir()}
	url := "https://localhost:" + strconv.Itoa(port) + "/"
	c.args = []string{"--silent", "--show-error", "--fail", "--ipv4", "--max-time",
		strconv.Itoa(int(testkit.Patience.Seconds())), "--cacert", s.ca,
		"--tlsv" + s.name(), "--tls-max", s.name(), "--http1.1", "--header", "Expect:"}
	if s.resume {
		c.args = append(c.args, url, "--output", "/dev/null")
	}
	c.args = append(c.args, url, "--data-binary", "@"+filepath.Join(c.dir, "request"),
		"--output", filepath.Join(c.dir, "answer"))
	testkit.Must(t, os.WriteFile(filepath.Join(c.dir, "request"), lines(curlSeed, curlSize),
		0o600))
	c.process = start(t, "curl", c.args...)
	return c
}

// The data that curl sends must be known before curl connects.
const (
	curlSeed = 9
	curlSize = bulk
)

func (curl) server(t *testing.T, _ int, _ setting) talk {
	t.Fatal("curl is no server")
	return nil
}

type curlTalk struct {
	*process
	dir  string
	args []string
}

// serve reads the request of curl on our side, answers it, and checks what curl has received.
func (c *curlTalk) serve(us *ours.Stream, answer []byte) error {
	request, err := readRequest(us)
	if err != nil {
		return err
	}
	if !bytes.Equal(request, lines(curlSeed, curlSize)) {
		return fmt.Errorf("curl's request has %d bytes, which differ from the bytes that "+
			"curl had to send", len(request))
	}
	if err := respond(us, answer); err != nil {
		return err
	}
	if err := us.Close(); err != nil {
		return err
	}
	if err := c.end(); err != nil {
		return err
	}
	if !c.cmd.ProcessState.Success() {
		return errors.New("curl: " + c.said())
	}
	got, err := os.ReadFile(filepath.Join(c.dir, "answer"))
	if err == nil && !bytes.Equal(got, answer) {
		err = fmt.Errorf("curl has received %d bytes, which differ from the bytes that we "+
			"have sent", len(got))
	}
	return err
}

// respond answers an HTTP request. The end of the connection ends the body (RFC 9112 section 6.3).
func respond(us *ours.Stream, body []byte) error {
	_, err := us.Write(append([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), body...))
	return err
}

// readRequest reads a whole request, and returns its body.
func readRequest(us *ours.Stream) ([]byte, error) {
	var got []byte
	for buf := make([]byte, 1<<16); ; {
		head, body, whole := bytes.Cut(got, []byte("\r\n\r\n"))
		if whole {
			_, size, _ := strings.Cut(string(head)+"\r\n", "\r\nContent-Length: ")
			size, _, _ = strings.Cut(size, "\r\n")
			if n, _ := strconv.Atoi(size); len(body) >= n {
				return body, nil
			}
		}
		n, err := us.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return nil, fmt.Errorf("reading the request fails after %d bytes: %w",
				len(got), err)
		}
	}
}
