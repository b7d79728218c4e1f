package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// page is what the HTTPS servers of these tests send.
const page = "this page has 22 bytes"

// localhost returns a certificate for the name localhost and for its address, and the CA that has
// signed the certificate.
func localhost(t *testing.T) (*testcert.CA, *testcert.Cert) {
	t.Helper()
	ca := testcert.NewCA(t, "Test CA")
	return ca, ca.Localhost(t)
}

// httpsServer starts an HTTPS server, made of net/http and crypto/tls. It returns the port.
func httpsServer(t *testing.T, cert *testcert.Cert) int {
	t.Helper()
	s := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, page)
		}))
	s.TLS = cert.Config()
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // drops errors of handshakes that must fail
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// opensslServer starts openssl s_server, which answers HTTP requests with a page about the
// connection. It returns the port.
func opensslServer(t *testing.T, cert *testcert.Cert) int {
	t.Helper()
	port := testkit.Port(t)
	start(t, program{name: "openssl", args: []string{"s_server", "-accept", testkit.Addr(port),
		"-www", "-cert", cert.CertFile, "-key", cert.KeyFile}})
	testd.AwaitListener(t, port)
	return port
}

// silentServer starts a server that does the TLS handshake and sends nothing. It returns the port.
func silentServer(t *testing.T, cert *testcert.Cert) int {
	t.Helper()
	l := listen(t, "127.0.0.1:0", cert)
	testkit.ServeOn(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	return l.Addr().(*net.TCPAddr).Port
}

// mutualServer starts a server that speaks one version of TLS, and requires certificates of its
// clients. It returns the port.
func mutualServer(t *testing.T, ca *testcert.CA, cert *testcert.Cert, version uint16) int {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{cert.TLS()}, ClientCAs: ca.Pool(),
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: version,
			MaxVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	testkit.ServeOn(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	return l.Addr().(*net.TCPAddr).Port
}

// swallowingPort returns a port to which no client can connect: the listener's queue is full, and
// the kernel drops each attempt.
func swallowingPort(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
			unix.Listen(fd, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*unix.SockaddrInet4).Port
	// this connection fills the queue
	first, err := net.DialTimeout("tcp", testkit.Addr(port), testkit.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return port
}

func listen(t *testing.T, address string, cert *testcert.Cert) net.Listener {
	t.Helper()
	l, err := tls.Listen("tcp", address, cert.Config())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial connects a client of crypto/tls, which trusts ca and speaks only TLS 1.3. The server must
// listen already.
func dial(t *testing.T, ca *testcert.CA, name string, port int) *tls.Conn {
	t.Helper()
	nc, err := net.DialTimeout("tcp", testkit.Addr(port), testkit.Patience)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(notified{nc.(*net.TCPConn)}, &tls.Config{ServerName: name,
		RootCAs: ca.Pool(), MinVersion: tls.VersionTLS13})
	t.Cleanup(func() { c.Close() })
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// A notified is a connection below TLS that must end with close_notify. crypto/tls takes the end of
// the stream between two records as the end of the data. After close_notify it reads no more, so
// only an end without close_notify reaches Read.
type notified struct{ *net.TCPConn }

func (n notified) Read(p []byte) (int, error) {
	read, err := n.TCPConn.Read(p)
	if err == io.EOF {
		err = errors.New("the stream has ended without close_notify")
	}
	return read, err
}

// readAll reads the data of a connection of dial to the end, which must be a close_notify.
func readAll(t *testing.T, c *tls.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("the peer must send its data and then close_notify; after %d bytes Read "+
			"failed: %v", len(b), err)
	}
	return string(b)
}
