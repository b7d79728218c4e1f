package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// goEndpoint is Go's crypto/tls.
type goEndpoint struct{}

func (goEndpoint) String() string { return "crypto/tls" }

func (goEndpoint) dial(t *testing.T, to address, o dialOptions) (stream, error) {
	cfg := &tls.Config{ServerName: to.host, InsecureSkipVerify: o.insecure,
		RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS10}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil || !cfg.RootCAs.AppendCertsFromPEM(pem) {
			t.Errorf("cannot read CA certificates from %s: %v", o.ca, err)
		}
	}
	if o.only != 0 {
		cfg.MinVersion, cfg.MaxVersion = o.only, o.only
	}
	nc, err := net.DialTimeout("tcp", testkit.Addr(to.port), testkit.Patience)
	if err != nil {
		return nil, err
	}
	return goHandshake(t, nc, tls.Client(nc, cfg))
}

func goHandshake(t *testing.T, nc net.Conn, c *tls.Conn) (stream, error) {
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(testkit.Patience))
	if err := c.Handshake(); err != nil {
		nc.Close()
		return nil, err
	}
	return goStream{c}, nil
}

func (goEndpoint) listen(t *testing.T, o listenOptions) listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	cfg := &tls.Config{Certificates: []tls.Certificate{o.cert.TLS()},
		MinVersion: tls.VersionTLS10}
	if o.only != 0 {
		cfg.MinVersion, cfg.MaxVersion = o.only, o.only
	}
	return goListener{l.(*net.TCPListener), cfg}
}

type goListener struct {
	l   *net.TCPListener
	cfg *tls.Config
}

func (l goListener) port() int { return l.l.Addr().(*net.TCPAddr).Port }

func (l goListener) accept(t *testing.T) (stream, error) {
	l.l.SetDeadline(time.Now().Add(testkit.Patience))
	nc, err := l.l.Accept()
	if err != nil {
		return nil, err
	}
	return goHandshake(t, nc, tls.Server(nc, l.cfg))
}

type goStream struct{ *tls.Conn }

func (s goStream) peerSubject() string {
	certs := s.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return ""
	}
	return "/CN=" + certs[0].Subject.CommonName // the tests' subjects have no other parts
}

func (s goStream) version() string   { return versionOf(s.ConnectionState().Version) }
func (s goStream) closeWrite() error { return s.CloseWrite() }
func (s goStream) cut()              { s.NetConn().Close() }

func (s goStream) reset() {
	s.NetConn().(*net.TCPConn).SetLinger(0)
	s.NetConn().Close()
}
