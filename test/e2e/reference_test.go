package e2e

import (
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/test/rules/reference"
)

// Each example of the plugin's reference runs as it is printed.

// references has the peer of each example, and the output that the example must print.
var references = map[string]struct {
	other func(*testing.T, *otherSide)
	print string // regular expression
}{
	reference.TypicalFlow: {answers("GET / HTTP/1.0\r\nHost:\nexample.com\r\n\r\n"), ``},
	"tls.NewClient":       {answers(""), ``},
	"tls.Handshake":       {answers(""), ``},
	"tls.Write":           {answers("GET / HTTP/1.0\r\n\r\n"), ``},
	"tls.Read":            {greets, `22 bytes\n`},
	"tls.Close":           {answers(""), ``},
	// The server has a certificate that nobody trusts.
	"tls.SetInsecureSkipVerify": {isSelfSigned, ``},
	"tls.NewServerContext":      {nobody, ``},
	"tls.Accept":                {visits, ``},
	"tls.CloseServerContext":    {nobody, ``},
	"tls.SetCaBundle":           {nobody, ``},
	"tls.PeerCertSubject":       {answers(""), `/CN=example\.com\n`},
	"tls.Backend":               {nobody, `openssl\n`},
	"tls.Version":               {nobody, `OpenSSL [1-9]\.\d+\.\d.*\n`},
	"tls.LastError":             {nobody, `\[\]\n`},
}

// otherSide is the peer of an example.
type otherSide struct {
	ca     *testcert.CA
	cert   *testcert.Cert // of example.com
	during func()         // is called while the script runs; may be nil
	after  func()         // is called after the end of the script; may be nil
}

func nobody(*testing.T, *otherSide) {}

// answers makes example.com a server that must get exactly this request. If the request is not
// empty, the server sends a page.
func answers(request string) func(*testing.T, *otherSide) {
	return func(t *testing.T, o *otherSide) {
		o.serve(t, "127.0.0.1:443", o.cert, request, func(c net.Conn) string {
			got := make([]byte, len(request))
			n, _ := io.ReadFull(c, got) // serve will check got, so no check here
			if n > 0 {
				_, _ = io.WriteString(c, page) // the script need not read the page
			}
			rest, _ := io.ReadAll(c)
			return string(got[:n]) + string(rest)
		})
	}
}

// greets makes example.com a server that sends a page at once: the example reads without a request.
func greets(t *testing.T, o *otherSide) {
	o.serve(t, "127.0.0.1:443", o.cert, "", func(c net.Conn) string {
		_, _ = io.WriteString(c, page) // the script prints the number of bytes
		rest, _ := io.ReadAll(c)
		return string(rest)
	})
}

// isSelfSigned makes 127.0.0.1:8443 a server whose certificate nobody trusts.
func isSelfSigned(t *testing.T, o *otherSide) {
	cert := testcert.SelfSigned(t, testcert.Leaf{CN: "development"})
	o.serve(t, "127.0.0.1:8443", cert, "", func(c net.Conn) string {
		if err := c.(*tls.Conn).Handshake(); err != nil {
			return err.Error()
		}
		rest, _ := io.ReadAll(c)
		return string(rest)
	})
}

// visits is a client of the script's server.
func visits(t *testing.T, o *otherSide) {
	o.during = func() {
		testd.AwaitListener(t, 8443)
		c := dial(t, o.ca, "example.com", 8443)
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Error(err)
		}
		if got := readAll(t, c); got != "" {
			t.Errorf("the example's server has sent %q, want no data before "+
				"close_notify", got)
		}
	}
}

// serve listens on an address until the test ends. For each connection it calls its parameter
// talk, a function. After the script's end, serve checks that the script has connected, and that
// this function has returned want.
func (o *otherSide) serve(t *testing.T, address string, cert *testcert.Cert, want string,
	talk func(net.Conn) string) {
	t.Helper()
	got := make(chan string, 16)
	testkit.ServeOn(t, listen(t, address, cert), func(c net.Conn) { got <- talk(c) })
	o.after = func() {
		if g := testkit.Receive(t, got, "the script connects, and hangs up"); g != want {
			t.Errorf("the example's peer got %q, want %q", g, want)
		}
	}
}

// The examples connect to example.com:443 and 127.0.0.1:8443. So they run in a network namespace of
// their own, where the test listens on these addresses.
func TestReferenceExamples(t *testing.T) {
	t.Parallel()
	examples, err := reference.Examples(filepath.Join(root(t),
		"../shared/reference/tls-plugin.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the reference is not beside this checkout: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !inNamespaces(t) {
		return
	}
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Issue(t, testcert.Leaf{CN: "example.com", DNS: []string{"example.com"}})
	nameExample(t, string(ca.PEM()))
	d := testd.StartWith(t, testd.Options{Env: []string{"SSL_CERT_FILE=" + ca.File}})

	// The reference says that a script loads its plugins first. The printed examples do not.
	const loading = `plugin "../plugins/print/PrintPlugin"; plugin "../plugins/tls/TlsPlugin";` + "\n"
	ran := map[string]bool{}
	for _, e := range examples {
		ran[e.Name] = true
		for how, source := range map[string]string{"as printed": e.Source,
			"with plugin directives": loading + e.Source} {
			t.Run(e.Name+" "+how, func(t *testing.T) {
				runReference(t, d, &otherSide{ca: ca, cert: cert}, e.Name, source)
			})
		}
	}
	for name := range references {
		if !ran[name] {
			t.Errorf("the reference has no example of %s", name)
		}
	}
}

func runReference(t *testing.T, d *testd.Daemon, other *otherSide, name, source string) {
	t.Helper()
	want, ok := references[name]
	if !ok {
		t.Fatalf("the reference has an example of %s; the map references lacks it", name)
	}
	want.other(t, other)
	p := domhost(writeFile(t, filepath.Join(t.TempDir(), "example.dom"), source))
	// the examples name server.crt and server.key of their working directory
	p.dir, p.env = filepath.Dir(other.cert.CertFile), env(d)
	script := start(t, p)
	if other.during != nil {
		other.during()
	}
	e := script.wait(t)
	if e.status != 0 || e.stderr != "" {
		t.Errorf("the example of %s fails: status %d, stderr %q", name, e.status, e.stderr)
	}
	if !regexp.MustCompile(`^` + want.print + `$`).MatchString(e.stdout) {
		t.Errorf("the example of %s printed %q, want %s", name, e.stdout, want.print)
	}
	if other.after != nil {
		other.after()
	}
}
