package openssl_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ebitengine/purego"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/openssl"
)

// The C library counts the bytes that C has allocated (mallinfo2(3)): the objects of OpenSSL, and
// not the memory of Go. Each test runs in a process of its own, where nothing else allocates.
// malloc's caches are off, because their bytes would count as allocated.

const (
	growEnv  = "TLSD_TEST_GROW"
	tunables = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"
)

// A churn makes objects of the library and frees all of them. run returns nil if the objects work,
// or if they fail with the error that the churn wants.
type churn struct {
	name string
	run  func(t *testing.T) error
}

// elsewhere runs the test again in a new process, and returns true. In the new process elsewhere
// only returns false.
func elsewhere(t *testing.T) bool {
	t.Helper()
	if os.Getenv(growEnv) != "" {
		return false
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v",
		"-test.timeout=10m") // so a child that hangs prints where its goroutines are
	cmd.Env = append(os.Environ(), growEnv+"=1", tunables)
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil || !strings.Contains(string(out), t.Name()):
		t.Errorf("the test in a process of its own: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	default:
		t.Logf("in a process of its own:\n%s", out)
	}
	return true
}

// A bundle that is no longer used is freed by the garbage collector, too.
func TestABundleIsFreedWithoutACallOfFree(t *testing.T) {
	if elsewhere(t) {
		return
	}
	allocated := mallinfo(t)
	l, ca := load(t), testcert.NewCA(t, "CA")
	parse := func() *openssl.CABundle {
		b, err := l.ParseCABundle("ca.pem", ca.PEM())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	parse().Free() // from here on, one-time allocations are done

	const n = 50
	before := allocated()
	var bundles []*openssl.CABundle
	for range n {
		bundles = append(bundles, parse())
	}
	grown := allocated() - before
	if grown < n<<10 {
		t.Fatalf("%d bundles take only %d bytes: the test cannot see if they are freed", n,
			grown)
	}
	runtime.KeepAlive(bundles)
	bundles = nil
	testkit.Until(t, "the bundles to be freed", func() bool {
		runtime.GC()
		return allocated()-before < grown/n // less than one bundle is left
	})
}

// Whether a churn succeeds or fails, it leaves nothing allocated, however often it runs.
func TestNothingIsLeftOfWhatFails(t *testing.T) {
	if elsewhere(t) {
		return
	}
	allocated := mallinfo(t)
	for _, c := range churns(t) {
		t.Run(c.name, func(t *testing.T) {
			round := func(n int) (grown int) {
				before := allocated()
				for range n {
					if err := c.run(t); err != nil {
						t.Fatal(err)
					}
				}
				return allocated() - before
			}
			const n = 50
			round(n) // from here on, one-time allocations are done
			// A thread that starts during a round allocates too. So the test succeeds
			// if one of six rounds leaves nothing. malloc's smallest piece has 24
			// bytes. So if each run leaks, a round leaves at least 24*n bytes.
			least := 0
			for range 6 {
				grown := round(n)
				if grown < 24*n {
					t.Logf("%d bytes more after %d times", grown, n)
					return
				}
				if least == 0 || grown < least {
					least = grown
				}
			}
			t.Errorf("each round of %d runs leaves %d bytes or more, want less than "+
				"24 bytes a run", n, least)
		})
	}
	// The test must be able to see a leak.
	l, id := load(t), newIdentity(t)
	before := allocated()
	for range 10 {
		// never freed
		if _, err := l.NewServerContext(id.cert.CertPEM, id.cert.KeyPEM); err != nil {
			t.Fatal(err)
		}
	}
	if grown := allocated() - before; grown < 10*1000 {
		t.Errorf("10 contexts that are not freed have only %d bytes: the test cannot see "+
			"leaks", grown)
	}
}

// A connection that has moved much data and is idle has as much memory as a connection that has
// moved one byte.
func TestIdleConnectionsKeepNoMemoryOfWhatTheyHaveMoved(t *testing.T) {
	if elsewhere(t) {
		return
	}
	// The constants size and most are numbers of bytes for one connection.
	const conns, size, most = 50, 300_000, 500
	allocated := mallinfo(t)
	move := func(c *openssl.Conn, peer *tls.Conn, size int) {
		t.Helper()
		echoed := make(chan error, 1)
		go func() {
			p := make([]byte, size)
			_, err := io.ReadFull(peer, p)
			if err == nil {
				_, err = peer.Write(p)
			}
			echoed <- err
		}()
		if _, err := c.Write(bounded(t), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < size; {
			p, err := c.ReadSome(bounded(t), size)
			if err != nil {
				t.Fatal(err)
			}
			n += len(p)
			openssl.Recycle(p)
		}
		if err := <-echoed; err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range setups {
		grown := 0
		for range 2 { // in the first round each thread gets memory that it keeps
			var all [conns]*openssl.Conn
			var peers [conns]*tls.Conn
			for i := range all {
				all[i], peers[i] = s.connect(t)
				move(all[i], peers[i], 1)
			}
			before := allocated()
			for i := range all {
				move(all[i], peers[i], size)
			}
			grown = (allocated() - before) / conns
			t.Logf("%s: %d bytes more in each connection", s.name, grown)
		}
		if grown > most {
			t.Errorf("%s: %d bytes more in each connection, want at most %d", s.name,
				grown, most)
		}
	}
}

// mallinfo returns a function that counts the allocated bytes.
func mallinfo(t *testing.T) func() int {
	t.Helper()
	type sizes struct {
		_        [4]uintptr // arena, ordblks, smblks, hblks
		hblkhd   uintptr
		_        [2]uintptr // usmblks, fsmblks
		uordblks uintptr
		_        [2]uintptr // fordblks, keepcost
	}
	type ints struct {
		_        [4]int32
		hblkhd   int32
		_        [2]int32
		uordblks int32
		_        [2]int32
	}
	// since glibc 2.33
	if f, err := purego.Dlsym(purego.RTLD_DEFAULT, "mallinfo2"); err == nil {
		var get func() sizes
		purego.RegisterFunc(&get, f)
		return func() int { s := get(); return int(s.uordblks + s.hblkhd) }
	}
	f, err := purego.Dlsym(purego.RTLD_DEFAULT, "mallinfo")
	if err != nil {
		t.Skipf("this C library does not tell what is allocated: %v", err)
	}
	var get func() ints
	purego.RegisterFunc(&get, f)
	return func() int { s := get(); return int(s.uordblks) + int(s.hblkhd) }
}

func churns(t *testing.T) []churn {
	t.Helper()
	l, id := load(t), newIdentity(t)
	stranger := testcert.NewCA(t, "Stranger")
	old := id.ca.Issue(t, testcert.Leaf{CN: "old", DNS: []string{"localhost"}, Expired: true})
	client, server := clientContext(t, l, id.ca.PEM()), serverContext(t, l, id.cert)
	untrusting := clientContext(t, l, stranger.PEM())
	bad := pemOf("CERTIFICATE", []byte("bad"))

	// The error is "the peer closed the connection during the handshake". If the peer closes
	// before it has read all our data, the error has "reset" instead of "closed".
	const gone = "the connection during the handshake"
	// dial returns a function that does a handshake with a peer, and closes. The error of the
	// handshake must contain the text in want. If want is "", there must be no error. If want
	// is "then cut", the handshake must succeed, and a Read after the handshake must fail.
	dial := func(ctx *openssl.Context, host, want string,
		peer func(net.Conn)) func(*testing.T) error {
		return func(t *testing.T) error {
			ours, peers := connected(t)
			defer peers.Close()
			done := make(chan struct{})
			go func() { defer close(done); peer(peers) }()
			c, err := ctx.NewClient(ours, host)
			if err == nil {
				err = c.Handshake(t.Context())
				if err == nil && want == "then cut" {
					_, err = c.Read(t.Context(), make([]byte, 10))
				}
				c.Close()
			}
			<-done
			return expected(err, want)
		}
	}
	accept := func(want string, peer func(net.Conn)) func(*testing.T) error {
		return func(t *testing.T) error {
			ours, peers := connected(t)
			defer peers.Close()
			done := make(chan struct{})
			go func() { defer close(done); peer(peers) }()
			c, err := server.NewServer(ours)
			if err == nil {
				err = c.Handshake(t.Context())
				c.Close()
			}
			<-done
			return expected(err, want)
		}
	}
	serves := func(cert *testcert.Cert) func(net.Conn) {
		return func(nc net.Conn) {
			_, _ = io.Copy(io.Discard,
				tls.Server(nc,
					&tls.Config{Certificates: []tls.Certificate{cert.TLS()}}))
		}
	}
	bundle := func(pem []byte, want string) func(*testing.T) error {
		return func(*testing.T) error {
			b, err := l.ParseCABundle("ca.pem", pem)
			if err == nil {
				b.Free()
			}
			return expected(err, want)
		}
	}
	serverOf := func(cert, key []byte, want string) func(*testing.T) error {
		return func(*testing.T) error {
			ctx, err := l.NewServerContext(cert, key)
			if err == nil {
				ctx.Free()
			}
			return expected(err, want)
		}
	}
	join := func(a, b []byte) []byte { return append(append([]byte{}, a...), b...) }
	return []churn{
		{"client: all is well", dial(client, "localhost", "", serves(id.cert))},
		{"client: unknown authority",
			dial(untrusting, "localhost", "unable to get local issuer",
				serves(id.cert))},
		{"client: another name", dial(client, "other.test", "mismatch", serves(id.cert))},
		{"client: expired", dial(client, "localhost", "expired", serves(old))},
		{"client: bad host", dial(client, "a b", "is not a host name", func(net.Conn) {})},
		{"client: the peer closes",
			dial(client, "localhost", gone, func(nc net.Conn) { nc.Close() })},
		{"client: the peer is no TLS", dial(client, "localhost", "does not speak TLS",
			func(nc net.Conn) {
				_, _ = nc.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
				_, _ = io.Copy(io.Discard, nc)
			})},
		{"client: an alert", dial(client, "localhost", "alert", func(nc net.Conn) {
			_ = tls.Server(nc, &tls.Config{}).Handshake()
			_, _ = io.Copy(io.Discard, nc)
		})},
		{"client: cut afterwards", dial(client, "localhost", "then cut", func(nc net.Conn) {
			_ = tls.Server(nc,
				&tls.Config{
					Certificates: []tls.Certificate{id.cert.TLS()}}).Handshake()
			_ = nc.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, nc)
		})},
		{"server: all is well", accept("", func(nc net.Conn) {
			_, _ = io.Copy(io.Discard,
				tls.Client(nc, &tls.Config{RootCAs: id.ca.Pool(),
					ServerName: "localhost"}))
		})},
		{"server: the client refuses", accept("alert bad_certificate", func(nc net.Conn) {
			_ = tls.Client(nc, &tls.Config{RootCAs: stranger.Pool(),
				ServerName: "localhost", MaxVersion: tls.VersionTLS12}).Handshake()
			_, _ = io.Copy(io.Discard, nc)
		})},
		{"server: the client is no TLS", accept("does not speak TLS", func(nc net.Conn) {
			_, _ = nc.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			_, _ = io.Copy(io.Discard, nc)
		})},
		{"server: the client goes", accept(gone, func(nc net.Conn) { nc.Close() })},
		{"bundle: good", bundle(join(id.ca.PEM(), stranger.PEM()), "")},
		{"bundle: bad certificate",
			bundle(join(id.ca.PEM(), bad), "is not a valid certificate")},
		{"bundle: repeated", bundle(join(id.ca.PEM(), id.ca.PEM()), "")},
		{"bundle: a key", bundle(id.cert.KeyPEM, "has no certificate")},
		{"bundle: no PEM", bundle(id.ca.Cert.Raw, "is binary")},
		{"context: good", serverOf(id.cert.CertPEM, id.cert.KeyPEM, "")},
		{"context: bad intermediate", serverOf(join(id.cert.CertPEM, bad), id.cert.KeyPEM,
			"is not a valid certificate")},
		{"context: bad key", serverOf(id.cert.CertPEM, pemOf("PRIVATE KEY", []byte("bad")),
			"is not a valid private key")},
		{"context: another key", serverOf(id.cert.CertPEM, old.KeyPEM, "does not match")},
		{"context: encrypted key",
			serverOf(id.cert.CertPEM, readFile(t, id.cert.EncryptedKey(t, "secret")),
				"is encrypted")},
		{"context: the system's store", func(*testing.T) error {
			ctx, err := l.NewClientContext(nil)
			if err == nil {
				ctx.Free()
			}
			return err
		}},
	}
}

// expected returns nil if err has the text in want, or if want is "" and there is no error. If an
// error is wanted and there is none, expected returns io.ErrNoProgress.
func expected(err error, want string) error {
	switch {
	case err == nil && want == "", err != nil && want != "" &&
		strings.Contains(err.Error(), strings.TrimPrefix(want, "then ")):
		return nil
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// connected is tcpPair without the cleanup at the end of the test.
func connected(t *testing.T) (ours, peers *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	peers, err = l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	_ = peers.SetDeadline(time.Now().Add(testkit.Patience)) // ends a hang
	return ours, peers
}
