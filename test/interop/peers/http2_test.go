package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Both sides must agree on HTTP/2 in the handshake (RFC 9113 section 3.2). tlsd does TLS. net/http
// does HTTP over the connection, which it takes for plain text. As a client net/http is told to
// speak HTTP/2. As a server it detects the version.

// A listening is a server context in the form of a net.Listener, for net/http.
type listening struct {
	mine
	ctx    client.Handle
	agreed chan string // the protocol that each client has agreed on
}

func (l listening) Accept() (net.Conn, error) {
	c, err := l.AcceptConn(l.mine.ctx, l.ctx, "", 0)
	if err != nil {
		return nil, err
	}
	alpn, err := l.HandleInfo(l.mine.ctx, c.Handle(), "alpn")
	l.agreed <- alpn
	return c, err
}

func (l listening) Close() error   { return l.CloseServerContext(l.mine.ctx, l.ctx) }
func (l listening) Addr() net.Addr { return client.Addr(l.ctx) }

// Our server and a foreign client agree on a protocol by ALPN, and the client gets the page by this
// protocol.
func TestForeignClientsSpeakHTTP2WithUs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := testd.Start(t)
	for _, c := range []struct {
		name, ours string
		tool       string
		args       []string
		agreed     string // the protocol of ALPN
		protocol   string // the protocol of the request
	}{
		{"curl, HTTP/2", "h2,http/1.1", "curl", []string{"--http2"}, "h2", "HTTP/2.0"},
		{"curl, HTTP/2 behind HTTP/1.1", "http/1.1,h2", "curl", []string{"--http2"},
			"http/1.1", "HTTP/1.1"},
		{"curl, HTTP/1.1", "h2,http/1.1", "curl", []string{"--http1.1"}, "http/1.1",
			"HTTP/1.1"},
		{"curl, none", "h2,http/1.1", "curl", []string{"--http1.1", "--no-alpn"}, "",
			"HTTP/1.1"},
		{"nghttp", "h2,http/1.1", "nghttp", nil, "h2", "HTTP/2.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			need(t, c.tool)
			m := newMine(t, d)
			ctx, port := m.context(w.certs["ECDSA"], "alpn", c.ours)
			l := listening{m, ctx, make(chan string, 1)}
			page := func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s %s", r.Proto, ourPage)
			}
			server := &http.Server{Protocols: new(http.Protocols),
				ErrorLog: log.New(io.Discard, "", 0),
				Handler:  http.HandlerFunc(page)}
			server.Protocols.SetHTTP1(true)
			server.Protocols.SetUnencryptedHTTP2(true)
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()

			args := append(c.args, fmt.Sprintf("https://localhost:%d/", port))
			if c.tool == "curl" {
				args = append(args, "--silent", "--show-error", "--noproxy", "*",
					"--ipv4", "--cacert", w.ca.File)
			}
			printed, err := runTool("", c.tool, args...)
			testkit.Must(t, err)
			if want := c.protocol + " " + ourPage; printed != want {
				t.Errorf("the client printed %q, want %q", printed, want)
			}
			if got := <-l.agreed; got != c.agreed {
				t.Errorf("the handshake has agreed on %q, want %q", got, c.agreed)
			}
			testkit.Must(t, server.Close())
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("net/http's Serve returns %v, want ErrServerClosed", err)
			}
		})
	}
}

// If the two sides have no protocol in common, our server ends the handshake with an alert. Both
// sides report the reason.
func TestNoProtocolInCommonWithForeignClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMine(t, testd.Start(t))
	ctx, port := m.context(w.certs["ECDSA"], "alpn", "imap,pop3")
	for _, c := range []struct{ tool, says string }{
		{"openssl s_client -alpn h2,http/1.1 -connect " + testkit.Addr(port),
			"alert number 120"},
		{"curl --http2 --silent --show-error --noproxy * --ipv4 --cacert " + w.ca.File + " https://localhost:" + strconv.Itoa(port), "no application protocol"},
		{"gnutls-cli --alpn=h2 --x509cafile=" + w.ca.File + " --port=" +
			strconv.Itoa(port) + " localhost", "No supported application protocol"},
		{"nghttp https://localhost:" + strconv.Itoa(port), ""}, // it prints no reason
	} {
		words := strings.Fields(c.tool)
		t.Run(words[0], func(t *testing.T) {
			need(t, words[0])
			come := make(chan error, 1)
			go func() { _, err := m.Accept(m.ctx, ctx, "", 0); come <- err }()
			printed, left := runTool("", words[0], words[1:]...)
			failed(t, <-come, client.KindHandshake, "no application protocol")
			said := fmt.Sprintf("%s%v", printed, left)
			// With OpenSSL 1.1.1 curl has no text for the alert. It prints the number
			// of the alert (120) plus 1000.
			said = strings.ReplaceAll(said, "reason(1120)", "no application protocol")
			if c.says != "" && (left == nil ||
				!strings.Contains(strings.ToLower(said), strings.ToLower(c.says))) {
				t.Errorf("the client ends with %v, and prints %q; want a failure "+
					"with the text %q", left, printed, c.says)
			}
		})
	}
}

// Our client and nghttpd agree on HTTP/2, and three requests use one connection.
func TestWeSpeakHTTP2WithNghttpd(t *testing.T) {
	t.Parallel()
	need(t, "nghttpd")
	w := newWorld(t)
	folder := t.TempDir()
	text := lines(7, bulk)
	testkit.Must(t, os.WriteFile(filepath.Join(folder, "file.txt"), text, 0o644))
	port, cert := testkit.Port(t), w.certs["RSA"]
	server := start(t, "nghttpd", "--address=127.0.0.1", "--htdocs="+folder, strconv.Itoa(port),
		cert.KeyFile, cert.CertFile)
	go io.Copy(io.Discard, server.out)
	testd.AwaitListener(t, port)
	m := newMine(t, testd.Start(t))
	testkit.Must(t, m.SetCaBundle(m.ctx, w.ca.File))

	dials := 0
	transport := &http.Transport{Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials++
			h, err := m.NewClient(ctx, "localhost", port)
			if err != nil {
				return nil, err
			}
			if err := m.SetOption(ctx, h, "alpn", "h2,http/1.1"); err != nil {
				return nil, err
			}
			c, err := m.HandshakeConn(ctx, h)
			if err != nil {
				return nil, err
			}
			m.wants(h, "alpn", "h2", "version", "TLSv1.3", "verified", "1")
			return c, nil
		}}
	transport.Protocols.SetUnencryptedHTTP2(true) // tlsd has done TLS already
	defer transport.CloseIdleConnections()
	for range 3 {
		answer, err := (&http.Client{Transport: transport}).Get("http://localhost/file.txt")
		testkit.Must(t, err)
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		testkit.Must(t, err)
		if answer.Proto != "HTTP/2.0" || string(got) != string(text) ||
			!strings.HasPrefix(answer.Header.Get("Server"), "nghttpd") {
			t.Errorf("got %s, %d bytes, from %q; want HTTP/2.0, the file of %d bytes, "+
				"from nghttpd", answer.Proto, len(got),
				answer.Header.Get("Server"), len(text))
		}
	}
	if dials != 1 {
		t.Errorf("%d connections for three requests; HTTP/2 needs one", dials)
	}

	// If nghttpd supports none of the client's protocols, it goes on without a protocol, and so
	// does our client.
	h := m.dial(port, "alpn", "imap")
	testkit.Must(t, m.Handshake(m.ctx, h))
	m.wants(h, "alpn", "")
	testkit.Must(t, m.CloseConn(m.ctx, h))
}
