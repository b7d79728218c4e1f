package session_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tlsd/internal/audit"
	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/policy"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// audits collects the audit events of a session.
type audits struct {
	mu   sync.Mutex
	list []audit.Event
}

func (a *audits) note(e audit.Event) {
	a.mu.Lock()
	a.list = append(a.list, e)
	a.mu.Unlock()
}

// The method "are" compares the events since its previous call with want.
func (a *audits) are(t *testing.T, want ...audit.Event) {
	t.Helper()
	a.mu.Lock()
	got := a.list
	a.list = nil
	a.mu.Unlock()
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("the audit events are %+v, want %+v", got, want)
	}
}

// ruled makes a rig with a policy. keys are the lines of the table [default] of the policy file.
func ruled(t *testing.T, keys string) (*rig, *audits) {
	t.Helper()
	f, err := policy.Parse([]byte("[default]\n" + keys))
	if err != nil {
		t.Fatal(err)
	}
	a := &audits{}
	set := func(_ *fakeengine.Engine, c *session.Config) {
		c.Policy, c.Audit = f.Default(), a.note
	}
	return newRig(t, set), a
}

func denied(method, asked, key string) audit.Event {
	return audit.Event{Name: audit.Denied, Method: method, Asked: asked, Key: key}
}

// refuses checks that a call fails with kind denied, and that the error has all texts.
func (r *rig) refuses(c *session.Call, texts ...string) {
	r.t.Helper()
	err := r.fails(c, kind.Denied)
	for _, want := range texts {
		if !strings.Contains(err.Error(), want) {
			r.t.Errorf("the error is %q, want one that says %q", err, want)
		}
	}
	if last := r.lastError(); last != err.Error() {
		r.t.Errorf("LastError is %q, want %q", last, err)
	}
}

func TestSkippingVerificationIsAlwaysTold(t *testing.T) {
	t.Parallel()
	for _, keys := range []string{"", "insecure-skip-verify = true"} {
		r, a := ruled(t, keys)
		port := r.echo()
		h := r.handle(r.NewClient("localhost", port))
		r.ok(r.SetInsecureSkipVerify(h, false))
		a.are(t)
		r.ok(r.SetInsecureSkipVerify(h, true))
		a.are(t, audit.Event{Name: audit.InsecureSkipVerify,
			Method: "tls.SetInsecureSkipVerify",
			Asked:  fmt.Sprintf("localhost:%d", port)})
		r.ok(r.Handshake(h))
		// Now it is too late: after the handshake the call fails, and writes no audit
		// event.
		r.fails(r.SetInsecureSkipVerify(h, true), kind.State)
		a.are(t)
	}
}

func TestSkippingVerificationCanBeForbidden(t *testing.T) {
	t.Parallel()
	r, a := ruled(t, "insecure-skip-verify = false")
	port := testkit.Echo(t, r.cert.TLS())
	h := r.handle(r.NewClient("127.0.0.1", port))
	r.refuses(r.SetInsecureSkipVerify(h, true), "handle 1", fmt.Sprintf("127.0.0.1:%d", port),
		"(insecure-skip-verify)")
	a.are(t, denied("tls.SetInsecureSkipVerify", fmt.Sprintf("127.0.0.1:%d", port),
		"insecure-skip-verify"))
	r.ok(r.SetInsecureSkipVerify(h, false)) // allowed, because the verification stays on
	r.ok(r.Handshake(h))
	a.are(t)

	// After the failed call the verification is still on.
	other := testcert.NewCA(t, "Other CA").Issue(t, testcert.Leaf{DNS: []string{"localhost"}})
	h = r.handle(r.NewClient("localhost", testkit.Echo(t, other.TLS())))
	r.fails(r.SetInsecureSkipVerify(h, true), kind.Denied)
	r.fails(r.Handshake(h), kind.Verify)
}

// oldServer starts a server, and returns its port. The server speaks TLS from version 1.0 to the
// version latest.
func (r *rig) oldServer(latest uint16) int {
	cfg := r.serverConfig()
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, latest
	return testkit.Serve(r.t, func(nc net.Conn) { tls.Server(nc, cfg).Handshake() })
}

func TestOldVersionsCanBeForbidden(t *testing.T) {
	t.Parallel()
	r, a := ruled(t, `min-tls = "1.3"`)
	old := r.oldServer(tls.VersionTLS12)
	h := r.handle(r.NewClient("localhost", old))
	r.refuses(r.Handshake(h), "(min-tls)", "TLS below 1.3")
	a.are(t, denied("tls.Handshake", fmt.Sprintf("localhost:%d", old), "min-tls"))
	r.client(r.echo()) // succeeds, because this server speaks TLS 1.3

	// A new trust store makes a new client context, which must keep to the rule as well.
	r.ok(r.SetCaBundle(r.ca.File))
	h = r.handle(r.NewClient("localhost", old))
	r.refuses(r.Handshake(h), "(min-tls)")
	a.are(t, denied("tls.Handshake", fmt.Sprintf("localhost:%d", old), "min-tls"))

	ctx, port := r.server(), testkit.Port(t)
	accept := r.start(r.Accept(ctx, local, port))
	nc := dialTCP(t, port)
	client := r.clientConfig()
	client.MaxVersion = tls.VersionTLS12
	tls.Client(nc, client).Handshake()
	if err := accept.fails(kind.Denied); !strings.Contains(err.Error(), "(min-tls)") ||
		!strings.Contains(err.Error(), nc.LocalAddr().String()) {
		t.Errorf("the error is %q, want one that names min-tls and the client's address",
			err)
	}
	a.are(t, denied("tls.Accept", nc.LocalAddr().String(), "min-tls"))
	accept = r.start(r.Accept(ctx, local, port))
	r.dial(port)
	accept.ok()
	a.are(t)

	// If a handshake fails for another reason, the policy is not named.
	plain := testkit.Serve(t, func(nc net.Conn) {
		fmt.Fprint(nc, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	r.fails(r.Handshake(r.handle(r.NewClient("localhost", plain))), kind.Handshake)
	a.are(t)

	// Without the rule, a handshake with an older peer fails with kind handshake.
	for _, keys := range []string{"", `min-tls = "1.2"`} {
		r, a := ruled(t, keys)
		h := r.handle(r.NewClient("localhost", r.oldServer(tls.VersionTLS11)))
		r.fails(r.Handshake(h), kind.Handshake)
		a.are(t)
	}
}

func TestOnlyAllowedDestinationsAreConnectedTo(t *testing.T) {
	t.Parallel()
	seed := newRig(t)
	port := seed.echo()
	p := fmt.Sprint(port)
	for _, tc := range []struct {
		rules, host string
		refused     string // the destination that the error names; "": it is allowed
	}{
		{`"localhost:` + p + `"`, "localhost", ""},
		{`"localhost:` + p + `"`, "LocalHost", ""},
		{`"localhost:` + p + `"`, "127.0.0.1", "127.0.0.1:" + p},
		{`"localhost:` + fmt.Sprint(port-1) + `"`, "localhost", "localhost:" + p},
		{`"127.0.0.1:` + p + `"`, "127.0.0.1", ""},
		{`"127.0.0.1:` + p + `", "[::1]:` + p + `"`, "localhost", ""},
		{`"127.0.0.1:` + p + `"`, "::ffff:127.0.0.1", ""},
		{`"127.0.0.1:` + p + `"`, "0.0.0.0", ""},
		{`"127.0.0.1:` + p + `"`, "::ffff:0.0.0.0", ""},
		{`"*.example.com:` + p + `"`, "::ffff:7f00:1", "127.0.0.1:" + p},
		{`"*.example.com:` + p + `"`, "[::1]", "[::1]:" + p},
		{`"*.example.com:` + p + `"`, "fe80::1%x.example.com", "[fe80::1%x.example.com]:" + p},
		{`"127.0.0.0/8:1-65535"`, "127.0.0.1", ""},
		{`"10.0.0.0/8:` + p + `"`, "127.0.0.1", "127.0.0.1:" + p},
		{`"10.0.0.0/8:` + p + `"`, "0.0.0.0", "0.0.0.0:" + p},
		{`"[::1]:` + p + `"`, "127.0.0.1", "127.0.0.1:" + p},
		{`"*:` + p + `"`, "localhost", ""},
		{``, "localhost", "localhost:" + p},
		// The policy refuses the name before the look-up, which would fail with another
		// error.
		{`"example.com:` + p + `"`, "host.invalid", "host.invalid:" + p},
	} {
		r, a := ruled(t, "destinations = ["+tc.rules+"]")
		if tc.refused == "" {
			r.ok(r.NewClient(tc.host, port))
			a.are(t)
			continue
		}
		r.refuses(r.NewClient(tc.host, port), "tls.NewClient: connecting to "+tc.refused,
			"(destinations)")
		a.are(t, denied("tls.NewClient", tc.refused, "destinations"))
	}
}

// A host that two parsers could read differently is refused as a wrong parameter. The policy does
// not judge it, and tlsd does not connect.
func TestAmbiguousHostsAreNotConnectedTo(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", ":0") // for IPv4 and IPv6
	if err != nil {
		t.Fatal(err)
	}
	var reached atomic.Int32
	gone := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-gone })
	go func() {
		defer close(gone)
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			reached.Add(1)
			c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	for _, rules := range []string{`destinations = ["*.example.com:*", "example.com:*"]`, `destinations = ["*:*"]`, ""} {
		r, a := ruled(t, rules)
		for _, host := range []string{
			"::1%x.example.com", "::ffff:7f00:1%x.example.com", "::1%lo",
			"127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1.",
			"127.0.0.1%x.example.com", "\u212a.example.com", "example.com\x00.test",
			"https://example.com/", "example.com..", "*.example.com",
		} {
			err := r.fails(r.NewClient(host, port), kind.Params)
			if !strings.Contains(err.Error(), "is not a host: ") {
				t.Errorf("host %q: the error is %q, want \"is not a host\" in it",
					host, err)
			}
		}
		a.are(t)
		if n := reached.Load(); n != 0 {
			t.Fatalf("with the policy %s, %d connections were made, want 0", rules, n)
		}
	}
}

func TestAnAllowedDestinationThatIsNotThereIsAConnectError(t *testing.T) {
	t.Parallel()
	r, a := ruled(t, `destinations = ["127.0.0.1:*"]`)
	port := testkit.Port(t)
	err := r.fails(r.NewClient("127.0.0.1", port), kind.Connect)
	if err.Errno != "ECONNREFUSED" {
		t.Errorf("the error is %q with the errno %q, want ECONNREFUSED", err, err.Errno)
	}
	// localhost may also have the address [::1], which is forbidden. The error has the kind
	// connect nevertheless.
	r.fails(r.NewClient("localhost", port), kind.Connect)
	a.are(t)
}

func TestOnlyAllowedAddressesAreListenedOn(t *testing.T) {
	t.Parallel()
	port := testkit.Port(t)
	p := fmt.Sprint(port)
	everything := "0.0.0.0" // without IPv6, :: means 0.0.0.0
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		l.Close()
		everything = "[::]"
	}
	for _, tc := range []struct {
		rules, host string
		refused     string
	}{
		{`"` + p + `"`, local, ""},
		{`"127.0.0.1:` + p + `"`, "localhost", ""},
		{`"127.0.0.1:` + p + `"`, "::ffff:127.0.0.1", ""},
		{`"` + fmt.Sprint(port-1) + `"`, local, local + ":" + p},
		{`"` + fmt.Sprint(port+1) + `-65535"`, local, local + ":" + p},
		{`"127.0.0.2:` + p + `"`, local, local + ":" + p},
		{`"127.0.0.2:` + p + `"`, "localhost", local + ":" + p},
		{`"127.0.0.1:` + p + `"`, "0.0.0.0", "0.0.0.0:" + p},
		{`"127.0.0.0/8:` + p + `"`, "::", everything + ":" + p},
		{`"127.0.0.0/8:` + p + `"`, "::ffff:0.0.0.0", "0.0.0.0:" + p},
		{``, local, local + ":" + p},
	} {
		r, a := ruled(t, "listen = ["+tc.rules+"]")
		accept := r.start(r.Accept(r.server(), tc.host, port))
		if tc.refused != "" {
			err := accept.fails(kind.Denied).Error()
			if !strings.Contains(err, "listening on "+tc.refused+" is not allowed") ||
				!strings.Contains(err, "(listen)") {
				t.Errorf("listen = [%s], host %s: the error is %q, want one "+
					"that refuses %s and names listen", tc.rules, tc.host, err,
					tc.refused)
			}
			a.are(t, denied("tls.Accept", tc.refused, "listen"))
			continue
		}
		r.dial(port)
		accept.ok()
		a.are(t)
		r.End()
		unlistened(t, port) // before the next session listens there
	}
}

func TestFilesMustBeInTheAllowedFolders(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o700); err != nil {
		t.Fatal(err)
	}
	r, a := ruled(t, fmt.Sprintf("key-folders = [%q]\nca-folders = [%q]", in, in))
	copyOf := func(from, to string) string {
		b, err := os.ReadFile(from)
		if err == nil {
			to = filepath.Join(dir, to)
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	link := func(to, name string) string {
		name = filepath.Join(dir, name)
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	cert, key, ca := copyOf(r.cert.CertFile, "in/cert"), copyOf(r.cert.KeyFile, "in/key"),
		copyOf(r.ca.File, "in/ca")
	certOut, keyOut, caOut := copyOf(cert, "cert"), copyOf(key, "key"), copyOf(ca, "ca")

	r.ok(r.NewServerContext(cert, key))
	r.ok(r.NewServerContext(link(cert, "link-in"), key))
	r.ok(r.SetCaBundle(ca))
	a.are(t)
	for _, path := range []string{keyOut, link(keyOut, "in/link-out"), in + "/../key",
		"/dev/null", filepath.Join(dir, "none"), dir} {
		r.refuses(r.NewServerContext(cert, path), "the file "+path+" is not allowed",
			"(key-folders)")
		a.are(t, denied("tls.NewServerContext", path, "key-folders"))
	}
	r.refuses(r.NewServerContext(certOut, key), "the file "+certOut, "(key-folders)")
	a.are(t, denied("tls.NewServerContext", certOut, "key-folders"))
	r.refuses(r.SetCaBundle(caOut), "the file "+caOut, "(ca-folders)")
	a.are(t, denied("tls.SetCaBundle", caOut, "ca-folders"))
	r.client(r.echo()) // the old store is still in use

	// If a file of an allowed folder is missing or bad, the error has the kind file, and not
	// denied.
	r.fails(r.NewServerContext(cert, filepath.Join(in, "none")), kind.File)
	// The path of the allowed folder itself is denied.
	r.fails(r.NewServerContext(cert, in+"/"), kind.Denied)
	a.are(t, denied("tls.NewServerContext", in+"/", "key-folders"))
	r.fails(r.NewServerContext(cert, "in/key"), kind.File)
	a.are(t)

	// key-folders does not limit CA files, and ca-folders limits only CA files.
	r, _ = ruled(t, "key-folders = []")
	r.ok(r.SetCaBundle(r.ca.File))
	r.fails(r.NewServerContext(r.cert.CertFile, r.cert.KeyFile), kind.Denied)
	r, a = ruled(t, "ca-folders = []")
	r.server()
	r.fails(r.SetCaBundle(r.ca.File), kind.Denied)
	a.are(t, denied("tls.SetCaBundle", r.ca.File, "ca-folders"))
}

// The policy also limits the calls that change a handle.
func TestOptionsDoNotLeadAroundThePolicy(t *testing.T) {
	t.Parallel()
	in := t.TempDir()
	r, a := ruled(t, fmt.Sprintf(`
		min-tls = "1.3"
		key-folders = [%q]
		ca-folders = [%q]
		listen = ["127.0.0.1:1-1023", "127.0.0.2:*"]`, in, in))
	put := func(from, name string) string {
		b, err := os.ReadFile(from)
		to := filepath.Join(in, name)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	cert, key, ca := put(r.cert.CertFile, "cert"), put(r.cert.KeyFile, "key"),
		put(r.ca.File, "ca")
	r.ok(r.SetCaBundle(ca))
	old := r.oldServer(tls.VersionTLS12)

	h := r.handle(r.NewClient("localhost", old))
	r.refuses(r.SetOption(h, "ca", r.ca.File), "(ca-folders)")
	r.refuses(r.SetCertificate(h, "", cert, r.cert.KeyFile), "(key-folders)")
	a.are(t, denied("tls.SetOption", r.ca.File, "ca-folders"),
		denied("tls.SetCertificate", r.cert.KeyFile, "key-folders"))
	r.ok(r.SetOption(h, "ca", ca))
	r.ok(r.SetOption(h, "min-version", "1.2"))
	r.refuses(r.Handshake(h), "(min-tls)")
	a.are(t, denied("tls.Handshake", fmt.Sprintf("localhost:%d", old), "min-tls"))

	ctx := r.handle(r.NewServerContext(cert, key))
	r.refuses(r.SetOption(ctx, "client-ca", r.ca.File), "(ca-folders)")
	r.refuses(r.SetCertificate(ctx, "", cert, r.cert.KeyFile), "(key-folders)")
	r.refuses(r.SetCertificate(ctx, "a.test", r.cert.CertFile, key), "(key-folders)")
	r.refuses(r.Listen(ctx, local, 0), "listening on "+local+":0 (any free port) is not ",
		"(listen)")
	a.are(t, denied("tls.SetOption", r.ca.File, "ca-folders"),
		denied("tls.SetCertificate", r.cert.KeyFile, "key-folders"),
		denied("tls.SetCertificate", r.cert.CertFile, "key-folders"),
		denied("tls.Listen", local+":0", "listen"))
	r.ok(r.Listen(ctx, "127.0.0.2", 0)) // a rule for all ports allows port 0, too

	// Each of these calls makes a new engine context, which must keep to min-tls.
	r.ok(r.SetOption(ctx, "min-version", "1.2"))
	r.ok(r.SetCertificate(ctx, "a.test", cert, key))
	port := testkit.Port(t)
	r.ok(r.Listen(ctx, "127.0.0.2", port))
	for _, handshake := range []string{"accept", "later"} {
		r.ok(r.SetOption(ctx, "handshake", handshake))
		accepted := r.start(r.Accept(ctx, "", 0))
		nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.2:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		done := make(chan error, 1)
		old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
		go func() { done <- tls.Client(nc, old).Handshake() }()
		if handshake == "later" {
			r.refuses(r.Handshake(accepted.ok().(session.Handle)), "(min-tls)")
		} else if e := accepted.fails(kind.Denied); !strings.Contains(e.Why, "(min-tls)") {
			t.Errorf("the error of the Accept is %q, want one that names min-tls", e)
		}
		if <-done == nil {
			t.Errorf("option handshake %s: a client has done a handshake with TLS 1.2",
				handshake)
		}
	}
}
