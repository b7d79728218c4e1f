package session_test

import (
	"crypto/tls"
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

// Certificates of clients and of servers, over the real OpenSSL.

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

// at returns the address of a port of this machine.
func at(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// shownName returns the common name in the certificate that the server has shown.
func shownName(c *tls.Conn) string {
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
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
				t.Errorf("%s: the subject of the client is %v, want /CN=a "+
					"client, and its fact verified must be 1", name,
					r.ok(r.PeerCertSubject(a)))
			}
		} else {
			accepted.wait()
			if accepted.err == nil {
				t.Errorf("client certificate %s: the client was accepted, want "+
					"an error", name)
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
	// This goroutine accepts clients until the context is closed.
	work.Go(func() {
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
					t.Errorf("a client cannot connect: %v", err)
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
	for len(seen) == 0 { // until at least one client has come
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
			t.Errorf("a client that asks for %s gets the certificate of %s, want %s",
				asked, got, want)
		}
		if got := r.fact(accepted.ok().(session.Handle), "server-name"); got != asked {
			t.Errorf("the fact server-name of the accepted connection is %q, want %q",
				got, asked)
		}
		c.Close()
	}
}

// A context may have 64 listeners, and certificates for 256 names. The limit of handles counts
// neither, so each has a limit of its own.
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
		t.Errorf("the context listens on %d addresses, want 64", n)
	}
	other, otherPort := r.listener()
	r.ok(r.CloseServerContext(other))
	r.fails(r.Accept(ctx, "127.0.0.1", otherPort), kind.Limit)
	if again := r.ok(r.Listen(ctx, "127.0.0.1", port)).(int); again != port {
		t.Errorf("listening again on port %d gives port %d", port, again)
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
