package openssl_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/openssl"
)

// The tests use the libssl that Load("") finds, or that TLSD_TEST_LIBSSL names. TLSD_TEST_OPENSSL
// can require its version ("3.5"). The peer is usually crypto/tls.

func TestMain(m *testing.M) {
	if path := os.Getenv(loadOnly); path != "" {
		loadOnlyMain(path)
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if code == 0 {
			code = nothingIsLeft()
		}
		os.Exit(code)
	}))
}

// nothingIsLeft runs after all tests. It returns 1 if the Library still knows a closed connection,
// or if the error queue of a thread is not empty; else 0.
func nothingIsLeft() int {
	l, err := openssl.Load(os.Getenv("TLSD_TEST_LIBSSL"))
	if err != nil {
		println(err.Error())
		return 1
	}
	if n := openssl.Verdicts(l); n != 0 {
		println("verdicts of closed connections are left:", n)
		return 1
	}
	if n := openssl.Keepers(l); n != 0 {
		println("closed connections that keep sessions are left:", n)
		return 1
	}
	const threads = 50
	found := make(chan int, threads)
	release := make(chan struct{})
	for range threads {
		go func() {
			// Each of these goroutines has a thread of its own. Tests have used many
			// of these threads.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			found <- l.QueuedErrors()
			<-release
		}()
	}
	code := 0
	for range threads {
		if n := <-found; n != 0 {
			println("a thread has errors on its OpenSSL queue:", n)
			code = 1
		}
	}
	close(release)
	return code
}

func load(tb testing.TB) *openssl.Library {
	tb.Helper()
	l, err := openssl.Load(os.Getenv("TLSD_TEST_LIBSSL"))
	if err != nil {
		tb.Fatal(err)
	}
	if want := os.Getenv("TLSD_TEST_OPENSSL"); !strings.HasPrefix(l.Version(),
		"OpenSSL "+want) {
		tb.Fatalf("%s is loaded from %s, and this run is for %s", l.Version(),
			l.Path(), want)
	}
	return l
}

// bounded is a context that ends a test if it hangs.
func bounded(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	tb.Cleanup(cancel)
	return ctx
}

// tcpPair returns the two ends of a connection over loopback.
func tcpPair(tb testing.TB) (ours, peers *net.TCPConn) {
	tb.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	dialed := make(chan *net.TCPConn, 1)
	go func() {
		c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
		if err != nil {
			tb.Error(err)
		}
		dialed <- c
	}()
	if err := l.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
		tb.Fatal(err)
	}
	a, err := l.AcceptTCP()
	b := <-dialed
	if err != nil || b == nil {
		tb.Fatal("no connection: ", err)
	}
	// If a test goes wrong, its peer must not hang.
	_ = b.SetDeadline(time.Now().Add(testkit.Patience))
	tb.Cleanup(func() { b.Close() })
	return a, b
}

// An identity has a server's certificate, and the CA that a client must trust.
type identity struct {
	ca   *testcert.CA
	cert *testcert.Cert
}

func newIdentity(tb testing.TB) identity {
	tb.Helper()
	ca := testcert.NewCA(tb, "Test CA")
	return identity{ca, ca.Issue(tb, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
		IPs: []string{"127.0.0.1"}})}
}

// clientContext returns a context for clients that trust the CAs in pem.
func clientContext(tb testing.TB, l *openssl.Library, pem []byte) *openssl.Context {
	tb.Helper()
	b, err := l.ParseCABundle("test-ca.pem", pem)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, err := l.NewClientContext(b)
	if err != nil {
		tb.Fatal(err)
	}
	b.Free()
	tb.Cleanup(ctx.Free)
	return ctx
}

func serverContext(tb testing.TB, l *openssl.Library, cert *testcert.Cert) *openssl.Context {
	tb.Helper()
	ctx, err := l.NewServerContext(cert.CertPEM, cert.KeyPEM)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ctx.Free)
	return ctx
}

// A setup is one way to pair a Conn and its peer.
type setup struct {
	name   string
	server bool   // the Conn is the server
	max    uint16 // the newest version of TLS that the peer speaks
}

var setups = []setup{
	{"client/1.3", false, tls.VersionTLS13},
	{"client/1.2", false, tls.VersionTLS12},
	{"server/1.3", true, tls.VersionTLS13},
	{"server/1.2", true, tls.VersionTLS12},
}

// forSetups runs a test for each setup, with a connection after its handshake.
func forSetups(t *testing.T, test func(t *testing.T, c *openssl.Conn, peer *tls.Conn)) {
	t.Helper()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, peer := s.connect(t)
			test(t, c, peer)
		})
	}
}

// pair makes both ends, before the handshake.
func (s setup) pair(tb testing.TB) (*openssl.Conn, *tls.Conn) {
	tb.Helper()
	l, id := load(tb), newIdentity(tb)
	ours, peers := tcpPair(tb)
	var c *openssl.Conn
	var peer *tls.Conn
	var err error
	if s.server {
		c, err = serverContext(tb, l, id.cert).NewServer(ours)
		peer = tls.Client(peers, &tls.Config{RootCAs: id.ca.Pool(), ServerName: "localhost",
			MaxVersion: s.max, DynamicRecordSizingDisabled: true})
	} else {
		c, err = clientContext(tb, l, id.ca.PEM()).NewClient(ours, "localhost")
		peer = tls.Server(peers, &tls.Config{Certificates: []tls.Certificate{id.cert.TLS()},
			MaxVersion: s.max, DynamicRecordSizingDisabled: true})
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c, peer
}

// connect makes both ends and does the handshake.
func (s setup) connect(tb testing.TB) (*openssl.Conn, *tls.Conn) {
	tb.Helper()
	c, peer := s.pair(tb)
	errc := make(chan error, 1)
	go func() { errc <- peer.HandshakeContext(bounded(tb)) }()
	err := c.Handshake(bounded(tb))
	if perr := <-errc; err != nil || perr != nil {
		tb.Fatalf("handshake: %v; the peer's: %v", err, perr)
	}
	return c, peer
}

// stream is a Conn as an io.ReadWriter, with one context for all calls.
type stream struct {
	ctx context.Context
	c   *openssl.Conn
}

func (s stream) Read(p []byte) (int, error)  { return s.c.Read(s.ctx, p) }
func (s stream) Write(p []byte) (int, error) { return s.c.Write(s.ctx, p) }

var _ io.ReadWriter = stream{}
