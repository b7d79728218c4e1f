package conformance

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// The map effects has a function for each option of tls.SetOption. The function checks what the
// option does. The values that an option takes are in optionTable (options_test.go). That file also
// has the type desk: a session with a context that listens.

var effects = map[string]func(d *desk){
	"alpn": func(d *desk) {
		d.must(d.set(d.context, "alpn", "h3,h2"))
		h := d.shake("alpn", "http/1.1,h2,h3")
		d.tells(h, "alpn", "h3") // the order of the server's list decides
		d.fails("no protocol in common", d.try("alpn", "http/1.1"), client.KindHandshake,
			"no_application_protocol")
	},
	"server-name": func(d *desk) {
		d.tells(d.shake("server-name", "127.0.0.1"), "verified", "1")
		d.fails("another name", d.try("server-name", "other.test"), client.KindVerify,
			"hostname mismatch")
	},
	"ca": func(d *desk) {
		d.fails("another CA", d.try("ca", d.w.other.File), client.KindVerify,
			"unable to get local issuer certificate")
		d.tells(d.shake("ca", d.w.ca.File), "verified", "1")
	},
	"pins": func(d *desk) {
		sum := sha256.Sum256(d.w.cert.Cert.RawSubjectPublicKeyInfo)
		key, none := hex.EncodeToString(sum[:]), hex.EncodeToString(make([]byte, 32))
		h := d.shake("pins", "sha256:"+none+",sha256:"+key)
		d.tells(h, "key-sha256", key)
		d.fails("another key", d.try("pins", "sha256:"+none), client.KindVerify, key)
	},
	"min-version": func(d *desk) {
		old := goClient(d)
		old.MaxVersion = tls.VersionTLS12
		d.must(d.visit(old))
		d.must(d.set(d.context, "min-version", "1.3"))
		if err := d.visit(old); err == nil {
			d.t.Error("a context with min-version 1.3 accepts a client of TLS 1.2")
		}
		d.port = d.play(&tls.Config{MaxVersion: tls.VersionTLS12}, nil)
		d.tells(d.shake("min-version", "1.2"), "version", "TLSv1.2")
		d.fails("an old server", d.try("min-version", "1.3"), client.KindHandshake, "")
	},
	"eof": func(d *desk) {
		d.port = d.play(&tls.Config{}, func(c *tls.Conn) { c.NetConn().Close() })
		_, err := d.s.Read(testkit.Bounded(d.t), d.shake("eof", "strict"), 10)
		d.fails("a cut", err, client.KindIO, "close_notify")
		data, err := d.s.Read(testkit.Bounded(d.t), d.shake("eof", "lax"), 10)
		if err != nil || len(data) > 0 {
			d.t.Errorf("after a cut, Read with eof=lax gives %q, %v; want the end",
				data, err)
		}
	},
	"client-ca": func(d *desk) { d.clientsAre("require", true) },
	"client-cert": func(d *desk) {
		d.clientsAre("request", false)
		d.clientsAre("none", false)
	},
	"session-resumption": func(d *desk) { // resumed_test.go tests it for clients
		for _, c := range [][2]string{{"on", "1"}, {"off", "0"}} {
			d.must(d.set(d.context, "session-resumption", c[0]))
			for i, want := range []string{"", c[1]} {
				cl, sv := d.meet(true)
				_, err := d.s.Write(testkit.Bounded(d.t), sv, []byte("x"))
				d.must(err)
				// This Read also receives a ticket, for the next client.
				_, err = d.s.Read(testkit.Bounded(d.t), cl, 1)
				d.must(err)
				if i > 0 {
					d.tells(cl, "resumed", want)
				}
				d.must(d.s.CloseConn(testkit.Bounded(d.t), cl))
			}
		}
	},
	"failed-handshakes": func(d *desk) {
		accept := func() error {
			_, err := d.s.Accept(testkit.Bounded(d.t), d.context, "", 0)
			return err
		}
		d.garbage()
		d.fails("raise", accept(), client.KindHandshake, "")
		d.must(d.set(d.context, "failed-handshakes", "skip"))
		d.garbage()
		d.must(d.visit(goClient(d)))
		d.must(accept())
	},
	"handshake": func(d *desk) {
		_, sv := d.pair(false)
		_, err := d.s.WritePlain(testkit.Bounded(d.t), sv, []byte("220 ready"))
		d.must(err)
	},
	"reload": func(d *desk) {
		dir := d.t.TempDir()
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		write := func(c *testcert.Cert) {
			d.must(os.WriteFile(cert, c.CertPEM, 0o600))
			d.must(os.WriteFile(key, c.KeyPEM, 0o600))
		}
		write(d.w.cert)
		h, err := d.s.NewServerContext(testkit.Bounded(d.t), cert, key)
		d.must(err)
		d.must(d.s.SetOption(testkit.Bounded(d.t), h, "reload", "auto"))
		d.port, err = d.s.Listen(testkit.Bounded(d.t), h, "127.0.0.1", 0)
		d.must(err)
		renewed := issue(d.t, d.w.ca, localhost)
		write(renewed)
		shown := ""
		// tlsd looks at the files at most once a second. Until then, clients get the old
		// certificate.
		for want := sum(renewed.Cert.Raw); shown != want; {
			c, err := tls.Dial("tcp", testkit.Addr(d.port), goClient(d))
			d.must(err)
			shown = sum(c.ConnectionState().PeerCertificates[0].Raw)
			c.Close()
			d.must(testkit.Bounded(d.t).Err())
		}
	},
	"watch": func(d *desk) {
		waits := func(bound time.Duration, want client.Handle) {
			d.t.Helper()
			h, err := d.s.Wait(testkit.Bounded(d.t), bound)
			if h != want || err != nil {
				d.t.Errorf("Wait gives %d, %v; want %d", h, err, want)
			}
		}
		cl, sv := d.pair(true)
		waits(0, 0)
		d.must(d.set(sv, "watch", "1"))
		waits(time.Millisecond, 0)
		_, err := d.s.Write(testkit.Bounded(d.t), cl, []byte("x"))
		d.must(err)
		waits(-1, sv)
		_, err = d.s.Read(testkit.Bounded(d.t), sv, 10)
		d.must(err)
		waits(time.Millisecond, 0)
		d.must(d.s.Shutdown(testkit.Bounded(d.t), cl))
		waits(-1, sv)
		d.must(d.set(sv, "watch", "0"))
		waits(0, 0)
		d.must(d.set(d.context, "watch", "1"))
		d.must(d.visit(goClient(d)))
		waits(-1, d.context)
	},
}

// Each option of optionTable changes what a connection or a context does, at each level.
func TestEachOptionHasItsEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		for _, o := range optionTable {
			t.Run(o.name, func(t *testing.T) {
				effect := effects[o.name]
				if effect == nil {
					t.Fatal("the map effects has no test of this option")
				}
				effect(newDesk(t, e, w))
			})
		}
	})
}

func (d *desk) must(err error) {
	d.t.Helper()
	testkit.Must(d.t, err)
}

// A call of tells asks tls.Info for the fact with this name, and checks the answer.
func (d *desk) tells(h client.Handle, name, want string) {
	d.t.Helper()
	if got, err := d.s.HandleInfo(testkit.Bounded(d.t), h, name); got != want || err != nil {
		d.t.Errorf("%s is %q, %v; want %q", name, got, err, want)
	}
}

// try sets an option on a new client, and returns the result of the client's handshake.
func (d *desk) try(name, value string) error {
	d.t.Helper()
	_, err := d.connect(name, value)
	return err
}

// shake is like try, but the handshake must succeed. It returns the handle.
func (d *desk) shake(name, value string) client.Handle {
	d.t.Helper()
	h, err := d.connect(name, value)
	d.must(err)
	return h
}

func (d *desk) connect(name, value string) (client.Handle, error) {
	d.t.Helper()
	h := d.client()
	d.must(d.s.SetOption(testkit.Bounded(d.t), h, name, value))
	return h, d.s.Handshake(testkit.Bounded(d.t), h)
}

// goClient is the configuration with which crypto/tls connects to the desk's context.
func goClient(d *desk) *tls.Config {
	return &tls.Config{RootCAs: d.w.ca.Pool(), ServerName: "localhost"}
}

// visit connects a client of crypto/tls to the desk's context, and does its handshake. The
// connection remains open until the test ends.
func (d *desk) visit(c *tls.Config) error {
	d.t.Helper()
	conn, err := tls.Dial("tcp", testkit.Addr(d.port), c)
	if err == nil {
		d.t.Cleanup(func() { conn.Close() })
	}
	return err
}

// play starts a server of crypto/tls. If onConn is not nil, the server calls it after each
// handshake.
func (d *desk) play(c *tls.Config, onConn func(*tls.Conn)) (port int) {
	d.t.Helper()
	c.Certificates = []tls.Certificate{d.w.cert.TLS()}
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	d.must(err)
	d.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.t.Cleanup(func() { conn.Close() })
			if err = conn.(*tls.Conn).Handshake(); err == nil && onConn != nil {
				onConn(conn.(*tls.Conn))
			}
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// The method garbage connects to the desk's context, and sends HTTP instead of TLS.
func (d *desk) garbage() {
	d.t.Helper()
	c, err := net.Dial("tcp", testkit.Addr(d.port))
	d.must(err)
	defer c.Close()
	_, err = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	d.must(err)
}

// clientsAre sets the option client-cert to value, and checks which clients the context then
// accepts. The context must accept a client with a certificate of the CA. If required is true, the
// context must refuse a client without a certificate. Otherwise it must accept this client, too.
func (d *desk) clientsAre(value string, required bool) {
	d.t.Helper()
	d.must(d.set(d.context, "client-ca", "CA"))
	d.must(d.set(d.context, "client-cert", value))
	accept := func(c *tls.Config) (client.Handle, error) {
		d.t.Helper()
		_ = d.visit(c) // in TLS 1.3 a client is refused only after its handshake
		return d.s.Accept(testkit.Bounded(d.t), d.context, "", 0)
	}
	h, err := accept(goClient(d))
	if required {
		d.fails(value+", no certificate", err, client.KindHandshake, "certificate")
	} else {
		d.must(err)
		d.tells(h, "subject", "")
	}
	known := goClient(d)
	known.Certificates = []tls.Certificate{issue(d.t, d.w.ca, testcert.Leaf{CN: "x"}).TLS()}
	h, err = accept(known)
	d.must(err)
	subject := "/CN=x"
	if value == "none" {
		subject = ""
	}
	d.tells(h, "subject", subject)
}
