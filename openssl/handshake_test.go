package openssl_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/openssl"
)

func TestHandshakeTellsVersionAndSubject(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, peer := s.pair(t)
			if c.Version() != "" || c.PeerSubject() != "" {
				t.Errorf("before the handshake: version %q, subject %q, want none",
					c.Version(), c.PeerSubject())
			}
			if _, err := c.Read(bounded(t),
				make([]byte, 1)); !errors.Is(err, openssl.ErrNoHandshake) {
				t.Errorf("Read before the handshake: %v, want ErrNoHandshake", err)
			}
			if _, err := c.Write(bounded(t),
				make([]byte, 1)); !errors.Is(err, openssl.ErrNoHandshake) {
				t.Errorf("Write before the handshake: %v, want ErrNoHandshake", err)
			}
			go peer.Handshake()
			if err := c.Handshake(bounded(t)); err != nil {
				t.Fatal(err)
			}
			if err := c.Handshake(bounded(t)); err != nil {
				t.Errorf("a second Handshake: %v", err)
			}
			want := map[uint16]string{tls.VersionTLS12: "TLSv1.2",
				tls.VersionTLS13: "TLSv1.3"}[s.max]
			if c.Version() != want {
				t.Errorf("Version %q, want %q", c.Version(), want)
			}
			subject := "/CN=localhost"
			if s.server {
				subject = ""
			}
			if c.PeerSubject() != subject {
				t.Errorf("PeerSubject %q, want %q", c.PeerSubject(), subject)
			}
			c.Close()
			if c.Version() != want || c.PeerSubject() != subject {
				t.Errorf("after Close: version %q, subject %q, want %q and %q as "+
					"before", c.Version(), c.PeerSubject(), want, subject)
			}
		})
	}
}

// serve is the peer of a client: it does a handshake and then reads to the end.
func serve(peers net.Conn, conf *tls.Config) {
	s := tls.Server(peers, conf)
	if s.Handshake() == nil {
		_, _ = io.Copy(io.Discard, s)
	}
	peers.Close()
}

func TestClientVerifiesTheServer(t *testing.T) {
	t.Parallel()
	l := load(t)
	ca := testcert.NewCA(t, "Test CA")
	sub := ca.Intermediate(t, "Sub CA")
	other := testcert.NewCA(t, "Other CA")
	leaf := func(l testcert.Leaf) *testcert.Cert { l.CN = "leaf"; return ca.Issue(t, l) }
	names := testcert.Leaf{DNS: []string{"localhost", "*.example.com", "w*.partial.example"},
		IPs: []string{"127.0.0.1", "::1"}}
	good := leaf(names)
	self := testcert.SelfSigned(t, testcert.Leaf{CN: "self", DNS: []string{"localhost"}})
	withoutChain := sub.Issue(t, names).TLS()
	withoutChain.Certificate = withoutChain.Certificate[:1]
	twiceExpired := leaf(testcert.Leaf{DNS: []string{"localhost"}, Expired: true})

	for name, tc := range map[string]struct {
		cert  tls.Certificate
		trust []byte
		host  string
		code  int    // 0: the client accepts the certificate
		depth int    // of the failure
		says  string // part of the error
	}{
		"name":                      {good.TLS(), ca.PEM(), "localhost", 0, 0, ""},
		"name with final dot":       {good.TLS(), ca.PEM(), "localhost.", 0, 0, ""},
		"name in other case":        {good.TLS(), ca.PEM(), "LocalHost", 0, 0, ""},
		"wildcard":                  {good.TLS(), ca.PEM(), "www.example.com", 0, 0, ""},
		"IPv4 address":              {good.TLS(), ca.PEM(), "127.0.0.1", 0, 0, ""},
		"IPv6 address":              {good.TLS(), ca.PEM(), "::1", 0, 0, ""},
		"IPv6 address with zone":    {good.TLS(), ca.PEM(), "::1%lo", 0, 0, ""},
		"IPv4 address in IPv6 form": {good.TLS(), ca.PEM(), "::ffff:127.0.0.1", 0, 0, ""},
		"chain":                     {sub.Issue(t, names).TLS(), ca.PEM(), "localhost", 0, 0, ""},
		"trusted intermediate": {sub.Issue(t, names).TLS(), testcertPEM(sub),
			"localhost", 0, 0, ""},
		"trusted self-signed": {self.TLS(), self.CertPEM, "localhost", 0, 0, ""},
		"trusted leaf":        {good.TLS(), good.CertPEM, "localhost", 0, 0, ""},
		"expired": {twiceExpired.TLS(), ca.PEM(), "localhost", 10, 0,
			"certificate has expired (10) at depth 0, subject /CN=leaf"},
		"not yet valid": {leaf(testcert.Leaf{DNS: []string{"localhost"},
			NotYet: true}).TLS(), ca.PEM(), "localhost", 9, 0, "not yet valid"},
		"self-signed": {self.TLS(), ca.PEM(), "localhost", 18, 0, "(18) at depth 0, " +
			"subject /CN=self; trust store: test-ca.pem (CA bundle)"},
		"untrusted CA": {other.Issue(t, names).TLS(), ca.PEM(), "localhost", 20, 0,
			"unable to get local issuer certificate"},
		"untrusted chain": {other.Intermediate(t, "Other sub").Issue(t, names).TLS(),
			ca.PEM(), "localhost", 20, 1, "depth 1, subject /CN=Other sub"},
		"missing intermediate": {withoutChain, ca.PEM(), "localhost", 20, 0,
			"unable to get local issuer certificate"},
		"wrong name": {good.TLS(), ca.PEM(), "wrong.example", 62, 0,
			`the certificate is not for "wrong.example"`},
		"wildcard is one label": {good.TLS(), ca.PEM(), "a.b.example.com", 62, 0, "(62)"},
		"no partial wildcards": {good.TLS(), ca.PEM(), "www.partial.example",
			62, 0, "(62)"},
		"wrong address": {good.TLS(), ca.PEM(), "127.0.0.2", 64, 0,
			`the certificate is not for "127.0.0.2"`},
		"common name is no address": {ca.Issue(t, testcert.Leaf{CN: "127.0.0.1"}).TLS(),
			ca.PEM(), "127.0.0.1", 64, 0, "(64)"},
		"common name is no name": {ca.Issue(t, testcert.Leaf{CN: "localhost"}).TLS(),
			ca.PEM(), "localhost", 62, 0, "(62)"},
		"system's trust": {good.TLS(), nil, "localhost", 20, 0, "trust store: " +
			l.SystemTrust().String()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ctx *openssl.Context
			if tc.trust != nil {
				ctx = clientContext(t, l, tc.trust)
			} else {
				var err error
				if ctx, err = l.NewClientContext(nil); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(ctx.Free)
			}
			ours, peers := tcpPair(t)
			go serve(peers, &tls.Config{Certificates: []tls.Certificate{tc.cert}})
			c, err := ctx.NewClient(ours, tc.host)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.Handshake(bounded(t))
			if tc.code == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var v *openssl.VerifyError
			if !errors.As(err, &v) {
				t.Fatalf("error %v, want a VerifyError", err)
			}
			if v.Code != tc.code || v.Depth != tc.depth {
				t.Errorf("code %d at depth %d, want %d at %d: %v", v.Code, v.Depth,
					tc.code, tc.depth, err)
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %q does not say %q", err, tc.says)
			}
			if again := c.Handshake(bounded(t)); again != err {
				t.Errorf("a second Handshake: %v, want the first one's error",
					again)
			}
			if _, again := c.Read(bounded(t), make([]byte, 1)); again != err {
				t.Errorf("Read: %v, want the handshake's error", again)
			}
		})
	}
}

// testcertPEM is an authority's own certificate.
func testcertPEM(ca *testcert.CA) []byte {
	return pemOf("CERTIFICATE", ca.Cert.Raw)
}

func TestServerLearnsWhyItWasRefused(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	ours, peers := tcpPair(t)
	errc := make(chan error, 1)
	go func() {
		// In TLS 1.3, OpenSSL's client refuses a certificate with an unencrypted alert, and
		// crypto/tls does not accept an unencrypted alert. So the test uses TLS 1.2.
		errc <- tls.Server(peers,
			&tls.Config{Certificates: []tls.Certificate{id.cert.TLS()},
				MaxVersion: tls.VersionTLS12}).Handshake()
	}()
	c, err := clientContext(t, l, testcert.NewCA(t, "Other").PEM()).NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Handshake(bounded(t)); err == nil {
		t.Fatal("the handshake succeeds, but the client does not trust the server's CA")
	}
	c.Close()
	if err := <-errc; err == nil ||
		!strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("the server's error: %v, want \"unknown certificate authority\"", err)
	}
}

func TestSetVerifyTurnsVerificationOffAndOn(t *testing.T) {
	t.Parallel()
	l := load(t)
	cert := testcert.SelfSigned(t, testcert.Leaf{CN: "self"})
	for name, tc := range map[string]struct {
		calls []bool
		ok    bool
	}{
		"off":             {[]bool{false}, true},
		"on again":        {[]bool{false, true}, false},
		"on as it begins": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, peers := tcpPair(t)
			go serve(peers, &tls.Config{Certificates: []tls.Certificate{cert.TLS()}})
			c, err := clientContext(t, l, testcert.NewCA(t, "CA").PEM()).NewClient(ours,
				"localhost")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, on := range tc.calls {
				if err := c.SetVerify(on); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Handshake(bounded(t)); (err == nil) != tc.ok {
				t.Errorf("the handshake: %v; want success: %t", err, tc.ok)
			}
			if err := c.SetVerify(false); !errors.Is(err, openssl.ErrHandshakeDone) {
				t.Errorf("SetVerify after the handshake: %v, want ErrHandshakeDone",
					err)
			}
			c.Close()
			if err := c.SetVerify(false); !errors.Is(err, net.ErrClosed) {
				t.Errorf("SetVerify after Close: %v, want net.ErrClosed", err)
			}
		})
	}
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		c, _ := setup{server: true}.pair(t)
		if err := c.SetVerify(false); !errors.Is(err, openssl.ErrServerSide) {
			t.Errorf("SetVerify on a server: %v, want ErrServerSide", err)
		}
	})
}

func TestServerNameIsSentForNamesOnly(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	for host, want := range map[string]string{
		"localhost": "localhost", "localhost.": "localhost", "127.0.0.1": "", "::1": "",
		"fe80::1%lo": "",
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			ours, peers := tcpPair(t)
			sni := make(chan string, 1)
			go serve(peers, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (
				*tls.Certificate, error) {
				sni <- h.ServerName
				cert := id.cert.TLS()
				return &cert, nil
			}})
			c, err := clientContext(t, l, id.ca.PEM()).NewClient(ours, host)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetVerify(false)
			if err := c.Handshake(bounded(t)); err != nil {
				t.Fatal(err)
			}
			if got := <-sni; got != want {
				t.Errorf("the client sends the server name %q, want %q", got, want)
			}
		})
	}
}

func TestBadHostNamesAreRefused(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	ctx := clientContext(t, l, id.ca.PEM())
	for _, host := range []string{"", ".", "a b", "a\x00b", "bücher.example",
		strings.Repeat("a", 254)} {
		ours, peers := tcpPair(t)
		if c, err := ctx.NewClient(ours, host); err == nil {
			c.Close()
			t.Errorf("host %q was accepted", host)
		}
		// NewClient owns the socket, even if it fails, so it must have closed the socket.
		if n, err := peers.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("host %q: the peer reads %d bytes, %v; want 0 and EOF: NewClient "+
				"must close the socket", host, n, err)
		}
	}
}

func TestPeerSubjectIsWholeAndASCII(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 60)
	var units []pkix.AttributeTypeAndValue
	for range 5 {
		units = append(units, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 11},
			Value: long})
	}
	units = append(units, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: "end"})
	for name, tc := range map[string]struct {
		subject pkix.Name
		want    string
	}{
		"several parts": {pkix.Name{Country: []string{"DE"}, Organization: []string{"Org"},
			CommonName: "cn"}, "/C=DE/O=Org/CN=cn"},
		"not ASCII": {pkix.Name{CommonName: "bücher"}, `/CN=b\xC3\xBCcher`},
		"longer than 256 bytes": {pkix.Name{CommonName: "end", ExtraNames: units},
			strings.Repeat("/OU="+long, 5) + "/CN=end"},
		"empty": {pkix.Name{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, peers := tcpPair(t)
			cert := testcert.SelfSigned(t, testcert.Leaf{Subject: &tc.subject})
			go serve(peers, &tls.Config{Certificates: []tls.Certificate{cert.TLS()}})
			c, err := clientContext(t, load(t), cert.CertPEM).NewClient(ours,
				"localhost")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetVerify(false)
			if err := c.Handshake(bounded(t)); err != nil {
				t.Fatal(err)
			}
			if got := c.PeerSubject(); got != tc.want {
				t.Errorf("PeerSubject %q, want %q", got, tc.want)
			}
		})
	}
}

// No handshake succeeds here. The error must say what the peer has done.
func TestHandshakeErrorsSayWhatThePeerDid(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	say := func(s string) func(net.Conn) {
		return func(p net.Conn) {
			_, _ = io.WriteString(p, s)
			_, _ = io.Copy(io.Discard, p)
		}
	}
	for name, tc := range map[string]struct {
		server bool
		peer   func(p net.Conn)
		reason string
		err    error // the error of Handshake must wrap it; nil: any error will do
	}{
		"client meets HTTP": {false, say("HTTP/1.1 400 Bad Request\r\n\r\n"),
			"does not speak TLS", nil},
		"client meets SMTP": {false, say("220 mail.example ESMTP\r\n"),
			"does not speak TLS", nil},
		"client meets SSH": {false, say("SSH-2.0-OpenSSH_9.2\r\n"),
			"does not speak TLS", nil},
		"server meets HTTP": {true, say("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
			"does not speak TLS", nil},
		"client is hung up on": {false, func(p net.Conn) {
			_, _ = p.Read(make([]byte, 4096))
		}, "the peer closed the connection during the handshake", openssl.ErrTruncated},
		"server is hung up on": {true, func(net.Conn) {}, "the peer closed the " +
			"connection during the handshake", openssl.ErrTruncated},
		"client is reset": {false, func(p net.Conn) {
			_, _ = p.Read(make([]byte, 4096))
			_ = p.(*net.TCPConn).SetLinger(0)
		}, "the peer reset the connection during the handshake", syscall.ECONNRESET},
		"server is reset": {true, func(p net.Conn) {
			_ = p.(*net.TCPConn).SetLinger(0)
		}, "the peer reset the connection during the handshake", syscall.ECONNRESET},
		"client meets an alert": {false, func(p net.Conn) {
			_ = tls.Server(p, &tls.Config{GetConfigForClient: func(
				*tls.ClientHelloInfo) (*tls.Config, error) {
				return nil, errors.New("no")
			}}).Handshake()
		}, "the peer sent the alert internal_error (80)", nil},
		"server meets an alert": {true, func(p net.Conn) {
			_ = tls.Client(p, &tls.Config{ServerName: "localhost",
				MaxVersion: tls.VersionTLS12}).Handshake()
		}, "the peer sent the alert bad_certificate (42)", nil},
		"client meets TLS 1.1": {false, func(p net.Conn) {
			_ = tls.Server(p,
				&tls.Config{Certificates: []tls.Certificate{id.cert.TLS()},
					MinVersion: tls.VersionTLS10,
					MaxVersion: tls.VersionTLS11}).Handshake()
		}, "the peer sent the alert protocol_version (70)", nil},
		"server meets TLS 1.1": {true, func(p net.Conn) {
			_ = tls.Client(p, &tls.Config{ServerName: "localhost",
				MinVersion: tls.VersionTLS10,
				MaxVersion: tls.VersionTLS11}).Handshake()
		}, "the peer does not speak TLS 1.2 or newer", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, peers := tcpPair(t)
			var c *openssl.Conn
			var err error
			if tc.server {
				c, err = serverContext(t, l, id.cert).NewServer(ours)
			} else {
				c, err = clientContext(t, l, id.ca.PEM()).NewClient(ours,
					"localhost")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() {
				tc.peer(peers)
				peers.Close()
			}()
			err = c.Handshake(bounded(t))
			var h *openssl.HandshakeError
			if !errors.As(err, &h) {
				t.Fatalf("error %v (%T), want a HandshakeError", err, err)
			}
			if !strings.Contains(h.Reason, tc.reason) ||
				h.Version != strings.Contains(name, "TLS 1.1") {
				t.Errorf("reason %q, want %q in it (queue %q); the error is about "+
					"the version: %t, want %t", h.Reason, tc.reason, h.Queue,
					h.Version, strings.Contains(name, "TLS 1.1"))
			}
			if tc.err != nil && !errors.Is(err, tc.err) {
				t.Errorf("error %v does not wrap %v", err, tc.err)
			}
			if again := c.Handshake(bounded(t)); again != err {
				t.Errorf("a second Handshake: %v, want the same error", again)
			}
		})
	}
}

func TestHandshakeEndsWithItsContextAndCanGoOn(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, peer := s.pair(t)
			ctx, cancel := context.WithTimeout(context.Background(),
				20*time.Millisecond)
			defer cancel()
			if err := c.Handshake(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Handshake with a silent peer: %v, want DeadlineExceeded",
					err)
			}
			go peer.Handshake()
			if err := c.Handshake(bounded(t)); err != nil {
				t.Errorf("the next Handshake: %v", err)
			}
		})
	}
}

func TestServerSendsItsChain(t *testing.T) {
	t.Parallel()
	l := load(t)
	ca := testcert.NewCA(t, "Root")
	for _, kt := range []testcert.KeyType{testcert.ECDSA, testcert.RSA, testcert.Ed25519} {
		cert := ca.Intermediate(t, "Inter 1").Intermediate(t, "Inter 2").Issue(t,
			testcert.Leaf{DNS: []string{"localhost"}, Key: kt})
		certPEM, err := os.ReadFile(cert.CertFile)
		if err != nil {
			t.Fatal(err)
		}
		ctx, err := l.NewServerContext(append([]byte("a comment\r\n"), certPEM...),
			cert.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		defer ctx.Free()
		ours, peers := tcpPair(t)
		c, err := ctx.NewServer(ours)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		errc := make(chan error, 1)
		peer := tls.Client(peers, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		go func() { errc <- peer.Handshake() }()
		err = c.Handshake(bounded(t))
		if perr := <-errc; err != nil || perr != nil {
			t.Fatalf("handshake: %v; the client's: %v", err, perr)
		}
		if n := len(peer.ConnectionState().PeerCertificates); n != 3 {
			t.Errorf("the client has got %d certificates, want 3", n)
		}
	}
}

// The system takes only a part of the server's messages at once. The server must send the rest
// before it waits for the client's answer. This client reads nothing until the server waits for
// room in the socket.
func TestAHandshakeMessageMayBeLongerThanTheSocketsMemory(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	long := bytes.Clone(id.cert.CertPEM)
	for len(long) < 100<<10 { // about 70 KiB in a message
		long = append(long, id.ca.PEM()...)
	}
	ctx, err := load(t).NewServerContext(long, id.cert.KeyPEM)
	testkit.Must(t, err)
	t.Cleanup(ctx.Free)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close()
	// The client's socket has little memory from the start. So its first TCP window is small.
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10)
		})
		return err
	}}
	nc, err := dialer.DialContext(bounded(t), "tcp", l.Addr().String())
	testkit.Must(t, err)
	defer nc.Close()
	ours, err := l.Accept()
	testkit.Must(t, err)
	testkit.Must(t, ours.(*net.TCPConn).SetWriteBuffer(4<<10))
	c, err := ctx.NewServer(ours.(*net.TCPConn))
	testkit.Must(t, err)
	defer c.Close()
	peer := tls.Client(lateReader{nc, sync.OnceFunc(func() { waitForRoom(t, c) })},
		&tls.Config{RootCAs: id.ca.Pool(), ServerName: "localhost"})
	errc := make(chan error, 1)
	go func() { errc <- c.Handshake(bounded(t)) }()
	perr := peer.HandshakeContext(bounded(t))
	if err := <-errc; err != nil || perr != nil {
		t.Fatalf("handshake: %v; the client's: %v", err, perr)
	}
}

// A lateReader calls a function before each Read.
type lateReader struct {
	net.Conn
	before func()
}

func (r lateReader) Read(p []byte) (int, error) {
	r.before()
	return r.Conn.Read(p)
}

// The memory for outgoing bytes has 128 KiB. This server's certificates have more than 200 KiB.
func TestAHandshakeMessageMayBeLongerThanTheMemoryForIt(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	long := bytes.Clone(id.cert.CertPEM)
	other := testcert.NewCA(t, "not of this chain").PEM()
	block, _ := pem.Decode(other)
	certs := 1
	for ; certs*len(block.Bytes) < 200<<10; certs++ {
		long = append(long, other...)
	}
	ctx, err := load(t).NewServerContext(long, id.cert.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ctx.Free)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			ours, peers := tcpPair(t)
			c, err := ctx.NewServer(ours)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			peer := tls.Client(peers, &tls.Config{RootCAs: id.ca.Pool(),
				ServerName: "localhost", MaxVersion: version})
			errc := make(chan error, 1)
			go func() { errc <- peer.HandshakeContext(bounded(t)) }()
			err = c.Handshake(bounded(t))
			if perr := <-errc; err != nil || perr != nil {
				t.Fatalf("handshake: %v; the peer's: %v", err, perr)
			}
			if got := len(peer.ConnectionState().PeerCertificates); got != certs {
				t.Errorf("the peer has got %d certificates, want %d", got, certs)
			}
			if _, err := c.Write(bounded(t), []byte("hello")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(peer, got); err != nil || string(got) != "hello" {
				t.Errorf("the peer has read %q, %v, want hello", got, err)
			}
		})
	}
}
