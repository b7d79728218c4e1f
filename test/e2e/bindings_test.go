package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Programs in Python, LuaJIT and Node use the files of bindings/, with the real plugin and daemon.
// testdata/bindings has one program for each language. The program's first argument is the name of
// a case. All peers are crypto/tls.

// A tongue is a language that has a binding.
type tongue struct {
	program string // the interpreter
	binding string // the file in bindings/
	cases   string // the file in testdata/bindings/
}

var (
	python = tongue{"python3", "tlsd.py", "cases.py"}
	luajit = tongue{"luajit", "tlsd.lua", "cases.lua"}
	node   = tongue{"node", "tlsd.mjs", "cases.mjs"}
)

// peers are the servers of one test.
type peers struct {
	ca    *testcert.CA
	cert  *testcert.Cert // of localhost
	other *testcert.Cert // of *.example
	env   []string       // variables for a case: ports, certificates, the daemon's socket
}

// startPeers starts the servers, and the daemon for the cases.
func startPeers(t *testing.T) *peers {
	t.Helper()
	p := &peers{}
	p.ca, p.cert = localhost(t)
	p.other = p.ca.Issue(t, testcert.Leaf{CN: "other", DNS: []string{"*.example"}})
	client := p.ca.Issue(t, testcert.Leaf{CN: "a client"})
	d := testd.Start(t)
	stuck := make(chan struct{})
	config := func() *tls.Config {
		return p.cert.Config()
	}
	at := func(handle func(net.Conn), c *tls.Config) int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		testkit.ServeOn(t, l, func(conn net.Conn) {
			if c != nil {
				conn = tls.Server(conn, c)
			}
			handle(conn)
			_ = conn.Close() // with close_notify
		})
		return l.Addr().(*net.TCPAddr).Port
	}
	mutual := config()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, p.ca.Pool()
	mutual.NextProtos = []string{"echo"}
	p.env = append(env(d), "TLSPLUGIN="+testd.Plugin(t), "CA="+p.ca.File,
		"CERT="+p.cert.CertFile, "KEY="+p.cert.KeyFile, "OTHER_CERT="+p.other.CertFile,
		"OTHER_KEY="+p.other.KeyFile, "CLIENT_CERT="+client.CertFile,
		"CLIENT_KEY="+client.KeyFile)
	for name, port := range map[string]int{
		"HTTPS":   bodyServer(t, config()),
		"ECHO":    at(echo, config()),
		"MUTUAL":  at(greetAndEcho, mutual),
		"CUT":     at(cut, config()),
		"STUCK":   at(wait(stuck), config()),
		"UPGRADE": at(func(c net.Conn) { upgrade(c, config()) }, nil),
		"REFUSED": testkit.Port(t),
	} {
		p.env = append(p.env, name+"="+strconv.Itoa(port))
	}
	// Cleanups run in reverse order. So this cleanup ends the handler of STUCK, before a
	// cleanup of ServeOn waits for the handler.
	t.Cleanup(func() { close(stuck) })
	return p
}

// bodyServer is an HTTPS server that sends the body of a request back. A request without a body
// gets the constant page. bodyServer returns the port.
func bodyServer(t *testing.T, c *tls.Config) int {
	t.Helper()
	s := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if len(body) == 0 {
				body = []byte(page)
			}
			_, _ = w.Write(body)
		}),
	)
	s.TLS, s.Config.ErrorLog = c, log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// wait returns a handler that does the handshake, and then reads nothing until the channel is
// closed.
func wait(until <-chan struct{}) func(net.Conn) {
	return func(c net.Conn) {
		_ = c.(*tls.Conn).Handshake()
		<-until
	}
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

func greetAndEcho(c net.Conn) {
	s := c.(*tls.Conn)
	if s.Handshake() == nil {
		fmt.Fprintf(s, "hello %s, by %s\n",
			s.ConnectionState().PeerCertificates[0].Subject.CommonName,
			s.ConnectionState().NegotiatedProtocol)
		echo(s)
	}
}

// cut is a handler that ends the connection without close_notify.
func cut(c net.Conn) {
	s := c.(*tls.Conn)
	_ = s.Handshake()
	_ = s.NetConn().Close()
}

// upgrade is a handler that begins in plain text. After the client's line STARTTLS, it talks TLS.
func upgrade(c net.Conn, config *tls.Config) {
	_, _ = io.WriteString(c, "220 ready\n")
	said := make([]byte, len("STARTTLS\n"))
	if _, err := io.ReadFull(c, said); err != nil || string(said) != "STARTTLS\n" {
		return
	}
	_, _ = io.WriteString(c, "220 go\n")
	s := tls.Server(c, config)
	_, _ = io.WriteString(s, "secret")
	_, _ = io.Copy(io.Discard, s)
	_ = s.Close()
}

// start runs one case of the language's program. Program and binding are copied into one folder, as
// users do. The environment is p.env and the variables.
func (l tongue) start(t *testing.T, p *peers, name string, variables ...string) *process {
	t.Helper()
	testkit.Tool(t, l.program)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, l.binding),
		readFile(t, filepath.Join(root(t), "bindings", l.binding)))
	writeFile(t, filepath.Join(dir, l.cases),
		readFile(t, filepath.Join("testdata", "bindings", l.cases)))
	return start(
		t,
		program{
			name: l.program,
			args: []string{l.cases, name},
			dir:  dir,
			env:  append(p.env, variables...),
		},
	)
}

// l.all runs all of the cases at the same time. The map cases has the output that each case must
// print.
func (l tongue) all(t *testing.T, cases map[string]string) {
	testkit.Tool(t, l.program)
	p := startPeers(t)
	// t.Run returns when all cases have ended. Until then the peers must stay.
	t.Run("all", func(t *testing.T) {
		for name, want := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if e := l.start(t, p, name).wait(t); e.status != 0 ||
					e.stdout != want ||
					e.stderr != "" {
					t.Errorf("status %d, want 0; stderr %q, want none; "+
						"printed\n%swant\n%s",
						e.status, e.stderr, e.stdout, want)
				}
			})
		}
	})
}

func TestThePythonBindingIsAClient(t *testing.T) {
	t.Parallel()
	python.all(t, map[string]string{
		"https": "200 True True\n200 True True\nb'last' None\n",
		"facts": "hello a client, by echo\nsaid\necho TLSv1.3 /CN=localhost 1\n" +
			"b'' b''\necho\n-1 Error handle\n",
		"errors": "no trust: Error verify\nunverified: 0\nrefused: Error connect\n" +
			"no certificate: Error io\nalpn: Error handshake\n" +
			"option: Error params\n" +
			"zero: 'localhost\\x00.example.com': embedded null character\n" +
			"file: Error file\ncut: Error io\n" +
			"late: Timeout timeout\nwould wait\nthen: True\n" +
			"handshake: Error state\nclosed: Error handle\nleft open: True\n" +
			"no text: ArgumentError\n",
		"starttls": "b'220 ready\\n'\n9\nb'220 go\\n'\nb'secret'\n",
	})
}

// One thread serves 50 connections with add_reader. A connection whose peer reads nothing delays no
// other connection.
func TestThePythonBindingFitsAsyncio(t *testing.T) {
	t.Parallel()
	python.all(t, map[string]string{
		"readers": "50 connections\n",
		"streams": "b'by the loop'\nTrue False\n",
	})
}

func TestTheLuaBindingIsAClient(t *testing.T) {
	t.Parallel()
	luajit.all(t, map[string]string{
		"https": "200 " + page + "\n",
		"facts": "hello a client, by echo\ntrue\n" +
			"echo TLSv1.3 /CN=localhost 1\n[]\nhandle\n",
		"errors": "no trust: verify\nunverified: 0\nrefused: connect\n" +
			"alpn: handshake\noption: params\n" +
			"zero:  embedded null character\nfile: file\n" +
			"cut: io\nlate: timeout\nhandshake: state\n" +
			"closed: handle\nleft open: true\n",
		"starttls": "220 ready\n220 go\nsecret\n",
	})
}

func TestTheNodeBindingIsAClient(t *testing.T) {
	t.Parallel()
	node.all(t, map[string]string{
		"https": "200 true\n200 true\n1 connection\n",
		"facts": "hello a client, by echo\n" +
			"echo TLSv1.3 /CN=localhost 1\ntrue\ntrue handle\n",
		"errors": "no trust: verify\nunverified: 0\nrefused: connect\n" +
			"alpn: handshake\noption: params\nfile: file\n" +
			"cut: io\nlate: timeout\nhandshake: state\n",
		"many":     "50 connections\n",
		"starttls": "220 ready\n220 go\nsecret\n",
	})
}

func TestTheNodeBindingSaysThatThereIsNoDaemon(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, node.program)
	p := startPeers(t)
	nobody := filepath.Join(testkit.Dir(t), "tlsd.sock")
	socket := "TLSD_SOCKET=" + nobody
	if e := node.start(t, p, "backend", socket).wait(t); e.stdout != "backend\n" {
		t.Errorf("without a socket: status %d, printed %q, stderr %q; "+
			"want the kind backend", e.status, e.stdout, e.stderr)
	}
	l, err := net.Listen("unix", nobody)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if e := node.start(t, p, "backend", socket).wait(t); e.stdout != "backend\n" {
		t.Errorf("with the socket of a daemon that has ended: status %d, printed %q, "+
			"stderr %q; want the kind backend", e.status, e.stdout, e.stderr)
	}
}

var printedPort = regexp.MustCompile(`port (\d+)\n`)

// port waits until the process prints the port on which it listens, and returns this port.
func (r *process) port(t *testing.T) int {
	t.Helper()
	testkit.Until(t, r.name+" prints its port", func() bool {
		select {
		case <-r.done:
			t.Fatalf("%s has ended, and has not printed its port", r.name)
		default:
		}
		return printedPort.MatchString(r.stdout.String())
	})
	n, err := strconv.Atoi(printedPort.FindStringSubmatch(r.stdout.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheBindingsAreServers(t *testing.T) {
	t.Parallel()
	for _, l := range []tongue{python, luajit, node} {
		t.Run(l.program, func(t *testing.T) {
			t.Parallel()
			testkit.Tool(t, l.program)
			p := startPeers(t)
			client := p.ca.Issue(t, testcert.Leaf{CN: "a client"})
			server := l.start(t, p, "server")
			port := server.port(t)
			address := testkit.Addr(port)

			garbage, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(garbage, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, garbage)
			garbage.Close()

			for i, c := range []*tls.Config{
				{ServerName: "localhost"},
				{ServerName: "localhost", NextProtos: []string{"h2", "echo"},
					Certificates: []tls.Certificate{client.TLS()}},
				{ServerName: "www.example"},
			} {
				c.RootCAs = p.ca.Pool()
				data := bytes.Repeat([]byte("all\x00bytes\xff"), 100_000*i)
				if err := sendAndReceive(address, c, data); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
			e := server.wait(t)
			// The cases in Python and LuaJIT also print that the handshake with the
			// client of the garbage has failed. This line can come anywhere. Node's
			// binding skips such clients.
			printed := strings.Replace(e.stdout, "not a client: handshake\n", "", 1)
			want := fmt.Sprintf(
				"port %d\n[] [] [localhost] 0\n"+
					"[echo] [/CN=a client] [localhost] 1000000\n"+
					"[] [] [www.example] 2000000\n",
				port,
			)
			if e.status != 0 || e.stderr != "" || printed != want ||
				(printed != e.stdout) != (l != node) {
				t.Errorf("the server: status %d, stderr %q, printed\n%swant\n%s",
					e.status, e.stderr, e.stdout, want)
			}
		})
	}
}

// sendAndReceive sends the data to a TLS server, and then close_notify. It returns an error unless
// the server sends the same data back.
func sendAndReceive(address string, config *tls.Config, data []byte) error {
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer c.Close()
	said := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		said <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-said); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("sent %d bytes; got %d bytes back, which are not the same "+
			"bytes", len(data),
			len(got))
	}
	return nil
}

func TestTheNodeBindingServesHTTP(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, node.program)
	p := startPeers(t)
	server := node.start(t, p, "web")
	url := "https://localhost:" + strconv.Itoa(server.port(t)) + "/"
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.Cert)
	var connections atomic.Int32
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool},
			DialContext: func(ctx context.Context, network,
				to string) (net.Conn, error) {
				connections.Add(1)
				return new(net.Dialer).DialContext(ctx, network, to)
			},
		},
	}
	for range 3 {
		answer, err := client.Post(url, "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(answer.Body); string(body) != "hello" || err != nil {
			t.Errorf("the server answers a POST of hello with %q, %v", body, err)
		}
		answer.Body.Close()
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("3 requests have taken %d connections, want 1", n)
	}
	client.CloseIdleConnections()
}

func TestThePythonBindingIsInterrupted(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, python.program)
	r := python.start(t, startPeers(t), "interrupted")
	for n := 1; n <= 2; n++ {
		r.expect(t, strings.Repeat("waits\ninterrupted\n", n-1)+"waits\n")
		// Python may lose a signal that comes just before its poll(2). So the test sends
		// the signal when python3 sleeps.
		testkit.Until(t, "python3 sleeps", func() bool {
			return slices.Contains(testkit.Children(os.Getpid()),
				testkit.Child{PID: r.cmd.Process.Pid, State: "S"})
		})
		if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		r.expect(t, strings.Repeat("waits\ninterrupted\n", n))
	}
	if e := r.wait(t); e.status != 0 || !strings.HasSuffix(e.stdout, "b'x'\n") {
		t.Errorf("after two interrupted calls, the connection does not work: status %d, "+
			"printed %q, stderr %q", e.status, e.stdout, e.stderr)
	}
}
