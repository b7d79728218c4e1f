package session_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/session"
)

// Options, facts, certificates and addresses to listen on, over the real OpenSSL.

// files writes a certificate and its key, and returns their paths.
func files(t *testing.T, c *testcert.Cert) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, text := range map[string][]byte{cert: c.CertPEM, key: c.KeyPEM} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// listener makes a context that listens on a free port.
func (r *rig) listener(options ...string) (ctx session.Handle, port int) {
	r.t.Helper()
	ctx = r.server()
	for i := 0; i < len(options); i += 2 {
		r.ok(r.SetOption(ctx, options[i], options[i+1]))
	}
	return ctx, r.ok(r.Listen(ctx, "127.0.0.1", 0)).(int)
}

// at is the address of a port of this machine.
func at(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// shownName is the common name in the certificate that the server has shown.
func shownName(c *tls.Conn) string {
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// fact returns one fact about a handle.
func (r *rig) fact(h session.Handle, name string) string {
	r.t.Helper()
	return r.ok(r.HandleInfo(h, name)).(string)
}

func TestAnUnknownOptionOrValueIsToldWithTheKnownOnes(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx := r.server()
	h := r.handle(r.NewClient("localhost", r.echo()))
	for _, c := range []struct {
		h           session.Handle
		name, value string
		says        string
	}{
		{h, "ALPN", "h2",
			"alpn, server-name, ca, pins, min-version, eof, session-resumption"},
		{h, "client-cert", "require", "alpn, server-name"},
		{ctx, "pins", "",
			"alpn, min-version, client-ca, client-cert, session-resumption, " +
				"failed-handshakes, handshake, reload"},
		{h, "alpn", "h2,,http/1.1", "names with commas"},
		{h, "alpn", strings.Repeat("x", 256), "names with commas"},
		{h, "server-name", "a b", "is not a host"},
		{h, "pins", "sha256:00", "64 hexadecimal digits"},
		{h, "pins", "sha1:" + strings.Repeat("0", 64), "64 hexadecimal digits"},
		{h, "min-version", "1.1", "1.2 or 1.3"},
		{h, "eof", "", "strict or lax"},
		{h, "session-resumption", "0", "on or off"},
		{ctx, "client-cert", "maybe", "none, request or require"},
		{ctx, "failed-handshakes", "log", "raise or skip"},
		{ctx, "handshake", "now", "accept or later"},
		{ctx, "reload", "on", "off or auto"},
		{ctx, "session-resumption", "1", "on or off"},
	} {
		r.failsWith(r.SetOption(c.h, c.name, c.value), kind.Params, c.says)
	}
	r.failsWith(r.SetOption(ctx, "client-cert", "require"), kind.State, "client-ca")
	r.fails(r.SetOption(h, "ca", "/nonexistent"), kind.File)
	r.fails(r.SetOption(ctx, "client-ca", "relative"), kind.File)
	rubbish := filepath.Join(t.TempDir(), "rubbish.pem")
	if err := os.WriteFile(rubbish, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for h, name := range map[session.Handle]string{h: "ca", ctx: "client-ca"} {
		r.failsWith(r.SetOption(h, name, rubbish), kind.File, rubbish)
	}
	r.ok(r.Handshake(h))
	for _, name := range []string{"alpn", "server-name", "ca", "pins", "min-version", "eof",
		"session-resumption"} {
		r.fails(r.SetOption(h, name, ""), kind.State)
	}
	r.fails(r.SetOption(99, "alpn", "h2"), kind.Handle)
	r.failsWith(r.HandleInfo(h, "colour"), kind.Params, "channel-binding")
}

func TestClientsAndServersOfOursAgreeOnAProtocol(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("alpn", "h2,http/1.1")
	h := r.handle(r.NewClient("127.0.0.1", port))
	r.ok(r.SetOption(h, "alpn", "http/1.1,h2"))
	accepted := r.start(r.Accept(ctx, "", 0))
	r.ok(r.Handshake(h))
	a := accepted.ok().(session.Handle)
	for _, end := range []session.Handle{h, a} {
		if got := r.fact(end, "alpn"); got != "h2" {
			t.Errorf("handle %d: alpn %q", end, got)
		}
	}
	if all := r.ok(r.HandleInfo(h, "")).(session.Facts); all["alpn"] != "h2" || len(all) != 21 {
		t.Errorf("%d facts: %v", len(all), all)
	}
	if r.fact(h, "peer-address") != r.fact(a, "local-address") ||
		r.fact(a, "peer-address") != r.fact(h, "local-address") {
		t.Error("the two ends have different addresses")
	}

	// Without a common protocol the handshake fails on both sides.
	other := r.handle(r.NewClient("127.0.0.1", port))
	r.ok(r.SetOption(other, "alpn", "imap"))
	accepted = r.start(r.Accept(ctx, "", 0))
	r.failsWith(r.Handshake(other), kind.Handshake, "no_application_protocol")
	accepted.fails(kind.Handshake)
}

func TestFactsAboutThePeersCertificate(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	h := r.handle(r.NewClient("localhost", r.echo()))
	r.fails(r.HandleInfo(h, "cipher"), kind.State)
	if got := r.fact(h, "peer-address"); !strings.HasPrefix(got, "127.0.0.1:") &&
		!strings.HasPrefix(got, "[::1]:") {
		t.Errorf("before the handshake the peer is %q", got)
	}
	r.ok(r.Handshake(h))
	leaf, err := x509.ParseCertificate(r.cert.TLS().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for name, want := range map[string]string{
		"version":     "TLSv1.3",
		"subject":     "/CN=localhost",
		"issuer":      "/CN=Test CA",
		"serial":      leaf.SerialNumber.Text(16),
		"san":         "DNS:localhost, IP:127.0.0.1",
		"not-before":  strconv.FormatInt(leaf.NotBefore.Unix(), 10),
		"not-after":   strconv.FormatInt(leaf.NotAfter.Unix(), 10),
		"sha256":      hex.EncodeToString(sum[:]),
		"key-sha256":  hex.EncodeToString(key[:]),
		"pem":         string(r.cert.CertPEM),
		"verified":    "1",
		"resumed":     "0",
		"server-name": "localhost",
		"unsent":      "0",
		"alpn":        "",
	} {
		if got := r.fact(h, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(r.fact(h, "channel-binding")) != 64 ||
		!strings.HasPrefix(r.fact(h, "chain"), r.fact(h, "pem")) ||
		r.fact(h, "cipher") == "" {
		t.Error("channel-binding, chain or cipher")
	}
}

// The owner of a certificate chooses the names in it. No name must look like another name, or hide
// the names behind it.
func TestANameOfACertificateIsOneEntry(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	cert := r.ca.Issue(t, testcert.Leaf{DNS: []string{
		"localhost", "a.example, DNS:admin.example", "admin.example\x00.evil.example", "b\nc", `d"e`, `f\g`,
	}})
	shown := cert.TLS()
	show := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &shown, nil }
	port := r.serveTLS(&tls.Config{GetCertificate: show},
		func(c *tls.Conn, _ *net.TCPConn) { c.Handshake() })
	h := r.handle(r.NewClient("localhost", port))
	r.ok(r.Handshake(h))
	const want = `DNS:localhost, DNS:"a.example, DNS:admin.example", DNS:"admin.example\x00.evil.example", DNS:"b\nc", DNS:"d\"e", DNS:"f\\g"`
	if got := r.fact(h, "san"); got != want {
		t.Errorf("san is %q, want %q", got, want)
	}
}

func TestOptionsOfAClientHold(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	leaf, err := x509.ParseCertificate(r.cert.TLS().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pin := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	old := r.serveTLS(&tls.Config{MaxVersion: tls.VersionTLS12},
		func(c *tls.Conn, _ *net.TCPConn) { c.Handshake() })
	cut := r.serveTLS(&tls.Config{}, func(c *tls.Conn, nc *net.TCPConn) {
		c.Write([]byte("all"))
		nc.Close()
	})
	other := testcert.NewCA(t, "Other CA").File
	for _, c := range []struct {
		name, host string
		port       int
		options    []string
		want       kind.Kind // "": the handshake succeeds
		says       string
	}{
		{"another name", "127.0.0.1", r.echo(),
			[]string{"server-name", "localhost"}, "", ""},
		{"a name that the certificate does not have", "localhost", r.echo(),
			[]string{"server-name", "example.com"}, kind.Verify, "example.com"},
		{"a CA that has not signed", "localhost", r.echo(),
			[]string{"ca", other}, kind.Verify, other},
		{"the CA again", "localhost", r.echo(),
			[]string{"ca", other, "ca", r.ca.File}, "", ""},
		{"the system's store", "localhost", r.echo(),
			[]string{"ca", ""}, kind.Verify, ""},
		{"the right pin", "localhost", r.echo(),
			[]string{"pins", fmt.Sprintf("sha256:%x", pin)}, "", ""},
		{"a wrong pin", "localhost", r.echo(),
			[]string{"pins", "sha256:" + strings.Repeat("0", 64)}, kind.Verify, "pins"},
		{"no pin after all", "localhost", r.echo(),
			[]string{"pins", "sha256:" + strings.Repeat("0", 64), "pins", ""}, "", ""},
		{"TLS 1.3 of an old server", "localhost", old,
			[]string{"min-version", "1.3"}, kind.Handshake, "protocol_version"},
		{"TLS 1.2 after all", "localhost", old,
			[]string{"min-version", "1.3", "min-version", "1.2"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := r.handle(r.NewClient(c.host, c.port))
			for i := 0; i < len(c.options); i += 2 {
				r.ok(r.SetOption(h, c.options[i], c.options[i+1]))
			}
			if c.want == "" {
				r.ok(r.Handshake(h))
			} else {
				r.failsWith(r.Handshake(h), c.want, c.says)
			}
			r.ok(r.Close(h))
		})
	}
	for value, lax := range map[string]bool{"strict": false, "lax": true} {
		h := r.handle(r.NewClient("localhost", cut))
		r.ok(r.SetOption(h, "eof", value))
		r.ok(r.Handshake(h))
		if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "all" {
			t.Fatalf("read %q", got)
		}
		if lax {
			if got := r.ok(r.Read(h, 10)).([]byte); len(got) != 0 {
				t.Errorf("read %q", got)
			}
		} else {
			r.fails(r.Read(h, 10), kind.IO)
		}
	}
}

func TestCertificatesOfClients(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("client-ca", r.ca.File, "client-cert", "require")
	good := r.ca.Issue(t, testcert.Leaf{CN: "a client"})
	bad := testcert.NewCA(t, "Stranger").Issue(t, testcert.Leaf{CN: "a client"})
	certs := map[string]*testcert.Cert{"good": good, "of another CA": bad, "none": nil}
	for name, c := range certs {
		h := r.handle(r.NewClient("127.0.0.1", port))
		if c != nil {
			cert, key := files(t, c)
			r.ok(r.SetCertificate(h, "", cert, key))
		}
		accepted := r.start(r.Accept(ctx, "", 0))
		r.start(r.Handshake(h)).wait()
		if c == good {
			a := accepted.ok().(session.Handle)
			if r.ok(r.PeerCertSubject(a)) != "/CN=a client" ||
				r.fact(a, "verified") != "1" {
				t.Errorf("%s: the client is %v", name, r.ok(r.PeerCertSubject(a)))
			}
		} else {
			accepted.wait()
			if accepted.err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		r.ok(r.Close(h))
	}
	h := r.handle(r.NewClient("127.0.0.1", port))
	cert, _ := files(t, good)
	_, key := files(t, bad)
	r.failsWith(r.SetCertificate(h, "", cert, key), kind.File, "does not match")
	r.fails(r.SetCertificate(h, "name", cert, key), kind.Params)
	r.fails(r.SetCertificate(ctx, "127.0.0.1", cert, key), kind.Params)
}

// TestARenewalDropsNobody: certificates are replaced while clients come. No client is refused or
// reset.
func TestARenewalDropsNobody(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener()
	const renewals, clients = 100, 4
	var pairs [][2]string
	for _, cn := range []string{"one", "two"} {
		cert, key := files(t,
			r.ca.Issue(t, testcert.Leaf{CN: cn, DNS: []string{"localhost"}}))
		pairs = append(pairs, [2]string{cert, key})
	}
	stop := make(chan struct{})
	seen := make(chan string, 1<<16)
	var work sync.WaitGroup
	work.Go(func() { // accepts until the context is closed
		for {
			call := r.start(r.Accept(ctx, "", 0))
			v, err := call.wait()
			if err != nil {
				return
			}
			r.start(r.Close(v.(session.Handle))).wait()
		}
	})
	var coming sync.WaitGroup
	for range clients {
		coming.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := tls.Dial("tcp", at(port), r.clientConfig())
				if err != nil {
					t.Errorf("a client is turned away: %v", err)
					return
				}
				if _, err := io.ReadAll(c); err != nil {
					t.Errorf("a client is reset: %v", err)
				}
				select {
				case seen <- shownName(c):
				default:
				}
				c.Close()
			}
		})
	}
	for i := range renewals {
		p := pairs[i%2]
		r.ok(r.SetCertificate(ctx, "", p[0], p[1]))
	}
	for len(seen) == 0 { // at least one has come
		c, err := tls.Dial("tcp", at(port), r.clientConfig())
		if err != nil {
			t.Fatal(err)
		}
		seen <- shownName(c)
		c.Close()
	}
	close(stop)
	coming.Wait()
	r.ok(r.CloseServerContext(ctx))
	work.Wait()
}

func TestClientsGetTheCertificateOfTheHostThatTheyAskFor(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener()
	for _, name := range []string{"a.test", "*.b.test"} {
		cert, key := files(t, r.ca.Issue(t, testcert.Leaf{CN: name, DNS: []string{name}}))
		r.ok(r.SetCertificate(ctx, name, cert, key))
	}
	r.fails(r.SetCertificate(ctx, "c.test", "/nonexistent", "/nonexistent"), kind.File)
	for asked, want := range map[string]string{"a.test": "a.test", "x.b.test": "*.b.test",
		"c.test": "localhost"} {
		accepted := r.start(r.Accept(ctx, "", 0))
		c, err := tls.Dial("tcp", at(port),
			&tls.Config{InsecureSkipVerify: true, ServerName: asked})
		if err != nil {
			t.Fatal(err)
		}
		if got := shownName(c); got != want {
			t.Errorf("%s gets the certificate of %s", asked, got)
		}
		if got := r.fact(accepted.ok().(session.Handle), "server-name"); got != asked {
			t.Errorf("the server was asked for %q, want %q", got, asked)
		}
		c.Close()
	}
}

// Some things are no handle, and live as long as a context. They have limits of their own.
func TestPlacesAndNamesOfAContextAreLimited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := r.server()
	var port int
	for range 64 {
		port = r.ok(r.Listen(ctx, "127.0.0.1", 0)).(int)
	}
	r.fails(r.Listen(ctx, "127.0.0.1", 0), kind.Limit)
	if n := strings.Count(r.fact(ctx, "address"), ":"); n != 64 {
		t.Errorf("the context listens in %d places", n)
	}
	other, otherPort := r.listener()
	r.ok(r.CloseServerContext(other))
	r.fails(r.Accept(ctx, "127.0.0.1", otherPort), kind.Limit)
	if again := r.ok(r.Listen(ctx, "127.0.0.1", port)).(int); again != port {
		t.Errorf("one of the places gives port %d, want %d", again, port)
	}
	set := func(name string) *session.Call {
		return r.SetCertificate(ctx, name, r.cert.CertFile, r.cert.KeyFile)
	}
	for n := range 256 {
		r.ok(set(fmt.Sprintf("h%d.test", n)))
	}
	r.fails(set("one-more.test"), kind.Limit)
	r.ok(set("h7.test"))
	r.ok(set(""))
}

func TestAContextListensInSeveralPlaces(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx := r.server()
	r.fails(r.Accept(ctx, "", 0), kind.State)
	r.fails(r.Accept(ctx, "127.0.0.1", 0), kind.Params)
	r.fails(r.Accept(ctx, "", 1), kind.Params)
	one := r.ok(r.Listen(ctx, "127.0.0.1", 0)).(int)
	waiting := r.start(r.Accept(ctx, "",
		0)) // it also gets clients of an address that is added later
	two := r.ok(r.Listen(ctx, "127.0.0.1", 0)).(int)
	if again := r.ok(r.Listen(ctx, "127.0.0.1", two)).(int); again != two {
		t.Errorf("listening again gives port %d, want %d", again, two)
	}
	addresses := fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", min(one, two), max(one, two))
	if got := r.fact(ctx, "address"); got != addresses && one != two {
		t.Logf("addresses %s", got) // in the order of the texts
	}
	r.dial(two)
	waiting.ok()
	waiting = r.start(r.Accept(ctx, "", 0))
	r.dial(one)
	waiting.ok()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.fails(r.Listen(ctx, "127.0.0.1", taken.Addr().(*net.TCPAddr).Port), kind.Connect)
}

func TestAServerSurvivesItsClients(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("failed-handshakes", "skip")
	waiting := r.start(r.Accept(ctx, "", 0))
	for _, says := range []string{"", "GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01"} {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, says)
		c.Close()
	}
	r.dial(port)
	waiting.ok()
}

func TestPlainTextBeforeTheHandshake(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("handshake", "later")
	accepted := r.start(r.Accept(ctx, "", 0))
	h := r.handle(r.NewClient("127.0.0.1", port))
	a := accepted.ok().(session.Handle)
	say := func(from, to session.Handle, text string) {
		t.Helper()
		r.ok(r.WritePlain(from, []byte(text)))
		for got := ""; got != text; {
			got += string(r.ok(r.ReadPlain(to, 100)).([]byte))
			if !strings.HasPrefix(text, got) {
				t.Fatalf("read %q, want %q", got, text)
			}
		}
	}
	say(a, h, "220 ready\r\n")
	say(h, a, "STARTTLS\r\n")
	say(a, h, "220 go ahead\r\n")
	r.fails(r.Read(h, 1), kind.State)
	server := r.start(r.Handshake(a))
	r.ok(r.Handshake(h))
	server.ok()
	r.ok(r.Write(h, []byte("x")))
	if got := string(r.ok(r.Read(a, 10)).([]byte)); got != "x" {
		t.Errorf("read %q", got)
	}
	r.fails(r.ReadPlain(h, 1), kind.State)
	r.fails(r.WritePlain(a, []byte("x")), kind.State)

	// Plain text of the peer that the caller has not read must not pass for a part of the
	// protected conversation.
	accepted = r.start(r.Accept(ctx, "", 0))
	h = r.handle(r.NewClient("127.0.0.1", port))
	a = accepted.ok().(session.Handle)
	r.ok(r.WritePlain(a, []byte("220 go ahead\r\n250 injected\r\n")))
	for got := ""; got != "220 go ahead\r\n"; {
		got += string(r.ok(r.ReadPlain(h, 1)).([]byte))
	}
	r.failsWith(r.Handshake(h), kind.State, "plain text")
}

func TestAnAcceptedConnectionBeforeItsHandshakeIsFreed(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("handshake", "later")
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a := r.ok(r.Accept(ctx, "", 0)).(session.Handle)
	r.ok(r.CloseServerContext(ctx))
	r.failsWith(r.Handshake(a), kind.Handle, "closed")
	if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v", err)
	}
}
