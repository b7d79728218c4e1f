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

// The peer of an example, and the output that the example must print.
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
	during func()         // when the script has been started; may be nil
	after  func()         // when it has ended; may be nil
}

func nobody(*testing.T, *otherSide) {}

// answers is example.com. It gets a request, or none if the request is empty, and answers it with a
// page.
func answers(request string) func(*testing.T, *otherSide) {
	return func(t *testing.T, o *otherSide) {
		o.serve(t, "127.0.0.1:443", o.cert, request, func(c net.Conn) string {
			got := make([]byte, len(request))
			n, _ := io.ReadFull(c, got) // too little shows below
			if n > 0 {
				_, _ = io.WriteString(c, page) // the script need not read it
			}
			rest, _ := io.ReadAll(c)
			return string(got[:n]) + string(rest)
		})
	}
}

// greets sends first: the example reads without a request.
func greets(t *testing.T, o *otherSide) {
	o.serve(t, "127.0.0.1:443", o.cert, "", func(c net.Conn) string {
		_, _ = io.WriteString(c, page) // the script says what it got
		rest, _ := io.ReadAll(c)
		return string(rest)
	})
}

// isSelfSigned is the development server at port 8443.
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
			t.Errorf("the server said %q", got)
		}
	}
}

// serve listens until the test ends. The script must connect, and handle must return want.
func (o *otherSide) serve(t *testing.T, address string, cert *testcert.Cert, want string,
	handle func(net.Conn) string) {
	t.Helper()
	got := make(chan string, 16)
	testkit.ServeOn(t, listen(t, address, cert), func(c net.Conn) { got <- handle(c) })
	o.after = func() {
		if g := testkit.Receive(t, got, "somebody connects, and leaves"); g != want {
			t.Errorf("the server got %q, want %q", g, want)
		}
	}
}

// TestReferenceExamples runs each example of the plugin's reference as printed. The examples
// connect to example.com:443 and 127.0.0.1:8443. So they run in a network of their own, where these
// peers are ours.
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

	// Users of the interpreter load the plugin first, as the reference says.
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
		t.Fatalf("nobody has said what the example of %s does", name)
	}
	want.other(t, other)
	p := domhost(writeFile(t, filepath.Join(t.TempDir(), "example.dom"), source))
	// server.crt and server.key lie there
	p.dir, p.env = filepath.Dir(other.cert.CertFile), env(d)
	script := start(t, p)
	if other.during != nil {
		other.during()
	}
	e := script.wait(t)
	if e.status != 0 || e.stderr != "" {
		t.Errorf("status %d, stderr %q", e.status, e.stderr)
	}
	if !regexp.MustCompile(`^` + want.print + `$`).MatchString(e.stdout) {
		t.Errorf("printed %q, want %s", e.stdout, want.print)
	}
	if other.after != nil {
		other.after()
	}
}
