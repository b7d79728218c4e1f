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

// The examples of what lies beyond a plain client and server: HTTP/2, certificates of clients,
// STARTTLS, virtual hosts. Their peers are net/http, nghttpd, crypto/tls and an SMTP server that is
// written here.

// http2Server is net/http's HTTP/2. /long has more than a window of flow control, and /PATH answers
// with the
// status PATH. What the clients spoke is sent on the channel.
func http2Server(t *testing.T, cert *testcert.Cert, spoken chan<- string) int {
	t.Helper()
	s := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			spoken <- r.Proto + " " + r.Method + " " + r.Host + " " + r.URL.String()
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
	spoken := make(chan string, 10)
	port := http2Server(t, cert, spoken)
	long := strings.Repeat("0123456789", 20_000)
	path := "/" + strings.Repeat("long", 100) // its length does not fit into one byte
	for _, c := range []struct{ path, want string }{
		{"/", "HTTP/2 200\n" + page + "\n22 bytes\n"},
		{path, "HTTP/2 200\n" + page + "\n22 bytes\n"},
		{"/long", "HTTP/2 200\n" + long + "\n200000 bytes\n"},
		{"/404", "HTTP/2 404\n\n0 bytes\n"},
	} {
		out := runClient(t, d, ca, "http2-client.dom", port, define("PATH", c.path))
		if out != c.want {
			t.Errorf("%s: printed %.200q, want %.200q", c.path, out, c.want)
		}
		if got, want := <-spoken, "HTTP/2.0 GET localhost "+c.path; got != want {
			t.Errorf("the server was asked for %q, want %q", got, want)
		}
	}
	// A server that speaks HTTP/1.1 only.
	e := run(t, example(t, d, "http2-client.dom", define("HOST", "localhost"),
		"-DPORT="+strconv.Itoa(httpsServer(t, cert)), define("CA", ca.File)))
	if e.status != 1 ||
		!strings.Contains(e.stdout+e.stderr, "does not speak HTTP/2") &&
			!strings.Contains(e.stderr, "no_application_protocol") {
		t.Errorf("without HTTP/2: status %d, %q, %q", e.status, e.stdout, e.stderr)
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
	// --padding: frames with padding, which net/http never sends.
	start(t, program{name: "nghttpd", args: []string{"--address=127.0.0.1", "--htdocs=" + dir,
		"--padding=100", strconv.Itoa(port), cert.KeyFile, cert.CertFile}})
	testd.AwaitListener(t, port)
	for path, want := range map[string]string{
		"/page": "HTTP/2 200\n" + page + "\n22 bytes\n",
		"/none": "HTTP/2 404\n",
	} {
		out := runClient(t, d, ca, "http2-client.dom", port, define("PATH", path))
		if !strings.HasPrefix(out, want) {
			t.Errorf("%s: printed %q, want %q", path, out, want)
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
		t.Errorf("without a certificate: status %d, %q, %q", e.status, e.stdout, e.stderr)
	}
	if e := client(stranger.CertFile, stranger.KeyFile); e.status != 1 ||
		!strings.Contains(e.stdout, "refused: ") {
		t.Errorf("with the certificate of another CA: status %d, %q, %q", e.status,
			e.stdout, e.stderr)
	}
	if e := client(anna.CertFile, anna.KeyFile); e.status != 0 ||
		e.stdout != "hello /CN=anna\n" {
		t.Errorf("anna: status %d, %q, %q", e.status, e.stdout, e.stderr)
	}
	// And a client that is not ours.
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
		t.Errorf("bob reads %q", got)
	}
	out := finish(t, server)
	mustContain(t, "the server", out, "client 1: /CN=anna, serial ",
		"client 2: /CN=bob, serial ")
	if n := strings.Count(out, "not served: "); n != 2 {
		t.Errorf("%d clients were not served; the server printed\n%s", n, out)
	}
}

// An smtpStandIn is a server of RFC 5321 and RFC 3207 that takes one mail. It is written for these
// tests, and no real
// mail server.
type smtpStandIn struct {
	cert     *testcert.Cert
	starttls bool // whether it knows STARTTLS
	log      []string
	mail     string
	err      error
}

// serve talks to one client. Lines of several lines and in two pieces are what a real server may
// send.
func (s *smtpStandIn) serve(c net.Conn) {
	defer func() { _ = c.Close() }() // the TLS connection, if it is one by then
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
		lastWords string // of the client to the server
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
			if e.status != c.status || s.log[len(s.log)-1] != c.lastWords {
				t.Errorf("status %d, %q, %q; the server heard %q, %v", e.status,
					e.stdout, e.stderr, s.log, s.err)
			}
			if c.status != 0 && s.mail != "" {
				t.Errorf("the server has got a mail: %q", s.mail)
			}
			if c.status == 0 &&
				s.mail != "Subject: a test\r\n\r\n"+
					"This was sent by a script.\r\n.\r\n" {
				t.Errorf("the mail is %q", s.mail)
			}
			if c.status == 0 && slices.Index(s.log, "STARTTLS") != 1 {
				t.Errorf("the server heard %q", s.log)
			}
		})
	}
}

// Each name has its certificate, and new ones hold from the next reading on. Bad ones change
// nothing.
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
			t.Errorf("%s has shown the certificate of %s, want %s", name, cn, wantCN)
		}
		if got, want := readAll(t, c), "welcome to "+name+"\n"; got != want {
			t.Errorf("read %q, want %q", got, want)
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
	visit("www.shop.example", "the shop") // and then it reads the files again
	server.expect(t, "client 2 ")
	visit("localhost", "localhost")
	replace(first, newer.CertPEM, newer.KeyPEM)
	replace(shop, []byte("no certificate"), shop.KeyPEM)
	visit("localhost", "localhost") // renewal comes after it
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
