package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// The scripts of examples/ for HTTP/2, client certificates, STARTTLS and virtual hosts run here.
// Their peers are net/http, nghttpd, crypto/tls, and an SMTP server that is written below.

// http2Server is an HTTP/2 server of net/http. The path /long has more bytes than a window of flow
// control. If the path is a number, such as /404, the answer has this number as its status. The
// server sends a line about each request to the channel requests.
func http2Server(t *testing.T, cert *testcert.Cert, requests chan<- string) int {
	t.Helper()
	s := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests <- r.Proto + " " + r.Method + " " + r.Host + " " + r.URL.String()
			switch status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); {
			case status > 0:
				w.WriteHeader(status)
			case r.URL.Path == "/long":
				_, _ = io.WriteString(w, strings.Repeat("0123456789", 20_000))
			default:
				_, _ = io.WriteString(w, page)
			}
		}),
	)
	s.TLS, s.EnableHTTP2 = cert.Config(), true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

func TestHTTP2ClientFetchesAPage(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	d := testd.Start(t)
	requests := make(chan string, 10)
	port := http2Server(t, cert, requests)
	long := strings.Repeat("0123456789", 20_000)
	path := "/" + strings.Repeat("long", 100) // HPACK writes its length in several bytes
	for _, c := range []struct{ path, want string }{
		{"/", "HTTP/2 200\n" + page + "\n22 bytes\n"},
		{path, "HTTP/2 200\n" + page + "\n22 bytes\n"},
		{"/long", "HTTP/2 200\n" + long + "\n200000 bytes\n"},
		{"/404", "HTTP/2 404\n\n0 bytes\n"},
	} {
		out := runClient(t, d, ca, "http2-client.dom", port, define("PATH", c.path))
		if out != c.want {
			t.Errorf("for %.20s the client printed %.200q, want %.200q", c.path, out,
				c.want)
		}
		if got, want := <-requests, "HTTP/2.0 GET localhost "+c.path; got != want {
			t.Errorf("the server was asked for %q, want %q", got, want)
		}
	}
	// The script refuses a server that speaks only HTTP/1.1.
	e := run(t, example(t, d, "http2-client.dom", define("HOST", "localhost"),
		"-DPORT="+strconv.Itoa(httpsServer(t, cert)), define("CA", ca.File)))
	if e.status != 1 ||
		!strings.Contains(e.stdout+e.stderr, "does not speak HTTP/2") &&
			!strings.Contains(e.stderr, "no_application_protocol") {
		t.Errorf("with a server that speaks only HTTP/1.1: status %d, printed %q, stderr "+
			"%q; want status 1, and the reason", e.status, e.stdout, e.stderr)
	}
}

func TestHTTP2ClientFetchesAPageOfNghttpd(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "nghttpd")
	ca, cert := localhost(t)
	d := testd.Start(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "page"), page)
	port := testkit.Port(t)
	// With --padding, nghttpd sends frames that have padding. net/http never sends such frames.
	start(t, program{name: "nghttpd", args: []string{"--address=127.0.0.1", "--htdocs=" + dir,
		"--padding=100", strconv.Itoa(port), cert.KeyFile, cert.CertFile}})
	testd.AwaitListener(t, port)
	for path, want := range map[string]string{
		"/page": "HTTP/2 200\n" + page + "\n22 bytes\n",
		"/none": "HTTP/2 404\n",
	} {
		out := runClient(t, d, ca, "http2-client.dom", port, define("PATH", path))
		if !strings.HasPrefix(out, want) {
			t.Errorf("for %s the client printed %q, want %q", path, out, want)
		}
	}
}

func TestMutualTLSScriptsKnowEachOther(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	d := testd.Start(t)
	anna := ca.Issue(t, testcert.Leaf{CN: "anna"})
	bob := ca.Issue(t, testcert.Leaf{CN: "bob"})
	stranger := testcert.NewCA(t, "Another CA").Issue(t, testcert.Leaf{CN: "anna"})
	server, port := startServer(t, d, cert, "mtls-server.dom", define("CA", ca.File),
		"-DCOUNT=2")

	client := func(certFile, keyFile string) ended {
		t.Helper()
		return run(
			t,
			example(t, d, "mtls-client.dom", define("HOST", "localhost"),
				"-DPORT="+strconv.Itoa(port), define("CA", ca.File),
				define("CERT", certFile), define("KEY", keyFile)),
		)
	}
	if e := client("", ""); e.status != 1 || !strings.Contains(e.stdout, "refused: ") ||
		!strings.Contains(e.stdout, "certificate") {
		t.Errorf("a client without a certificate: status %d, printed %q, stderr %q; want "+
			"status 1, refused",
			e.status, e.stdout, e.stderr)
	}
	if e := client(stranger.CertFile, stranger.KeyFile); e.status != 1 ||
		!strings.Contains(e.stdout, "refused: ") {
		t.Errorf("a client with a certificate of another CA: status %d, printed %q, "+
			"stderr %q; want status 1, refused", e.status, e.stdout, e.stderr)
	}
	if e := client(anna.CertFile, anna.KeyFile); e.status != 0 ||
		e.stdout != "hello /CN=anna\n" {
		t.Errorf("the client with anna's certificate: status %d, printed %q, stderr %q; "+
			"want status 0, hello /CN=anna",
			e.status, e.stdout, e.stderr)
	}
	// bob is a client of crypto/tls.
	c, err := tls.Dial(
		"tcp", testkit.Addr(port), &tls.Config{
			ServerName:   "localhost",
			RootCAs:      ca.Pool(),
			Certificates: []tls.Certificate{bob.TLS()},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := readAll(t, c); got != "hello /CN=bob\n" {
		t.Errorf("the client with bob's certificate got the greeting %q, want hello "+
			"/CN=bob", got)
	}
	out := finish(t, server)
	mustContain(t, "the server", out, "client 1: /CN=anna, serial ",
		"client 2: /CN=bob, serial ")
	if n := strings.Count(out, "not served: "); n != 2 {
		t.Errorf("the server refused %d clients, want 2; it printed\n%s", n, out)
	}
}

// An smtpStandIn takes the place of a mail server (RFC 5321, RFC 3207). It takes one mail.
type smtpStandIn struct {
	cert     *testcert.Cert
	starttls bool     // whether it knows STARTTLS
	log      []string // the client's lines
	mail     string
	err      error
}

// serve talks to one client. As real servers may, it sends replies of several lines, and one line
// in two pieces.
func (s *smtpStandIn) serve(c net.Conn) {
	defer func() { _ = c.Close() }() // after STARTTLS, c is the TLS connection
	in := bufio.NewReader(c)
	say := func(text string) { _, _ = io.WriteString(c, text) }
	say("220-mail.example")
	say(" is here\r\n220 ready\r\n")
	for secure, from := false, false; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			s.err = err
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.log = append(s.log, line)
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case verb == "EHLO" && !secure && s.starttls:
			say("250-mail.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n")
		case verb == "EHLO":
			say("250 mail.example\r\n")
		case verb == "STARTTLS" && !secure && s.starttls:
			say("220 go ahead\r\n")
			c = tls.Server(c, s.cert.Config())
			in, secure = bufio.NewReader(c), true
		case !secure && verb != "QUIT":
			say("530 TLS first\r\n")
		case verb == "MAIL" && rest == "FROM:<script@example.com>":
			from = true
			say("250 ok\r\n")
		case verb == "RCPT" && from && rest == "TO:<anna@example.com>":
			say("250 ok\r\n")
		case verb == "RCPT":
			say("550-nobody here\r\n550 has that name\r\n")
		case verb == "DATA":
			say("354 a dot ends it\r\n")
			for line := ""; line != ".\r\n"; s.mail += line {
				if line, err = in.ReadString('\n'); err != nil {
					s.err = err
					return
				}
			}
			say("250 taken\r\n")
		case verb == "QUIT":
			say("221 bye\r\n")
			return
		default:
			say("500 what?\r\n")
		}
	}
}

func TestSTARTTLSClientSendsAMail(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	d := testd.Start(t)
	for _, c := range []struct {
		name, to  string
		starttls  bool
		trusted   bool
		status    int
		lastWords string // the client's last line to the server
	}{
		{"a mail", "anna@example.com", true, true, 0, "QUIT"},
		{"nobody of that name", "otto@example.com", true, true, 1,
			"RCPT TO:<otto@example.com>"},
		{"no STARTTLS", "anna@example.com", false, true, 1, "STARTTLS"},
		{"a server that is not trusted", "anna@example.com", true, false, 1, "STARTTLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			s := &smtpStandIn{cert: cert, starttls: c.starttls}
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := l.Accept()
				if err != nil {
					s.err = err
					return
				}
				s.serve(conn)
			}()
			trust := ca.File
			if !c.trusted {
				trust = testcert.NewCA(t, "Another CA").File
			}
			e := run(
				t,
				example(t, d, "starttls-client.dom", define("HOST", "localhost"),
					"-DPORT="+strconv.Itoa(l.Addr().(*net.TCPAddr).Port),
					define("CA", trust), define("TO", c.to)),
			)
			l.Close()
			<-done
			if e.status != c.status || len(s.log) == 0 ||
				s.log[len(s.log)-1] != c.lastWords {
				t.Errorf("status %d, want %d; printed %q, stderr %q; the server "+
					"got the lines %q and the error %v; want %q as the last "+
					"line", e.status, c.status,
					e.stdout, e.stderr, s.log, s.err, c.lastWords)
			}
			if c.status != 0 && s.mail != "" {
				t.Errorf("the script failed, but it had sent a mail: %q", s.mail)
			}
			if c.status == 0 &&
				s.mail != "Subject: a test\r\n\r\n"+
					"This was sent by a script.\r\n.\r\n" {
				t.Errorf("the server got a mail that differs from what the "+
					"script sent: %q",
					s.mail)
			}
			if c.status == 0 && slices.Index(s.log, "STARTTLS") != 1 {
				t.Errorf("STARTTLS was not the client's second line: %q", s.log)
			}
		})
	}
}

// Each host name has a certificate of its own. After every second client, the server reads the
// files again. Renewed certificates are then used, and bad files change nothing.
func TestVirtualHostsAreRenewed(t *testing.T) {
	t.Parallel()
	ca, first := localhost(t)
	d := testd.Start(t)
	shop := ca.Issue(t, testcert.Leaf{CN: "the shop", DNS: []string{"*.shop.example"}})
	newer := ca.Issue(t, testcert.Leaf{CN: "renewed", DNS: []string{"localhost"}})
	server, port := startServer(t, d, first, "virtual-hosts.dom",
		define("NAME_CERT", shop.CertFile), define("NAME_KEY", shop.KeyFile), "-DEVERY=2",
		"-DCOUNT=8")
	visit := func(name, wantCN string) {
		t.Helper()
		c := dial(t, ca, name, port)
		if cn := c.ConnectionState().PeerCertificates[0].Subject.CommonName; cn != wantCN {
			t.Errorf("the server has shown %s the certificate of %s, want %s", name, cn,
				wantCN)
		}
		if got, want := readAll(t, c), "welcome to "+name+"\n"; got != want {
			t.Errorf("the greeting of the server is %q, want %q", got, want)
		}
	}
	replace := func(of *testcert.Cert, cert, key []byte) {
		t.Helper()
		for file, text := range map[string][]byte{of.CertFile: cert, of.KeyFile: key} {
			if err := os.WriteFile(file+".new", text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}
	}
	visit("localhost", "localhost")
	visit("www.shop.example", "the shop") // the server reads the files after this client
	server.expect(t, "client 2 ")
	visit("localhost", "localhost")
	replace(first, newer.CertPEM, newer.KeyPEM)
	replace(shop, []byte("no certificate"), shop.KeyPEM)
	visit("localhost", "localhost") // the server reads the files after this client
	server.expect(t, "client 4 ")
	server.expect(t, "not renewed: tls.SetCertificate: ")
	for range 2 {
		visit("localhost", "renewed")
		visit("mail.shop.example", "the shop")
	}
	out := finish(t, server)
	mustContain(t, "the server", out, "client 1 asks for [localhost]\n",
		"client 2 asks for [www.shop.example]\n",
		fmt.Sprintf("listening on port %d\n", port), shop.CertFile)
}
