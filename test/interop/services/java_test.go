package services

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Java has a TLS implementation of its own (JSSE). testdata/Peer.java uses it, as a client or as a
// server.

// java returns the arguments of Java that run Peer.java in a role. own is the peer's certificate;
// nil: none.
func (s *service) java(w *world, role string, port int, own *testcert.Cert) []string {
	s.t.Helper()
	source, err := os.ReadFile("testdata/Peer.java")
	testkit.Must(s.t, err)
	identity := "-"
	if own != nil {
		identity = s.path("identity.p12")
		s.run(need(s.t, "openssl"), "pkcs12", "-export", "-passout", "pass:secret",
			"-out", identity,
			"-in", s.file("own.crt", string(own.CertPEM)), "-inkey",
			s.file("own.key", string(own.KeyPEM)))
	}
	return []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		s.file("Peer.java", string(source)), role, strconv.Itoa(port),
		s.file("ca.pem", string(w.ca.PEM())), identity}
}

// needJava returns the path of java. The test also needs javac, because Java runs Peer.java from
// its source.
func needJava(t *testing.T) string {
	t.Helper()
	java := need(t, "java")
	real, err := filepath.EvalSymlinks(java)
	testkit.Must(t, err)
	need(t, "javac", filepath.Dir(real))
	return java
}

// A Java client talks with our server. Each side sees the other's certificate (the client's only if
// it has one), and both agree on TLS 1.3 and h2.
func TestJavaIsOurServersClient(t *testing.T) {
	t.Parallel()
	java := needJava(t)
	w := newWorld(t)
	d := testd.Start(t)
	for which, want := range map[string]string{"a good one": "/CN=" + clientName + " 1",
		"none": " 0"} {
		t.Run(which, func(t *testing.T) {
			m := newMine(t, d)
			ctx, err := m.NewServerContext(m.ctx, w.cert.CertFile, w.cert.KeyFile)
			testkit.Must(t, err)
			for _, o := range [][2]string{{"alpn", "h2,http/1.1"},
				{"client-ca", w.ca.File}, {"client-cert", "request"}} {
				testkit.Must(t, m.SetOption(m.ctx, ctx, o[0], o[1]))
			}
			port, err := m.Listen(m.ctx, ctx, "127.0.0.1", 0)
			testkit.Must(t, err)
			s := newService(t, "nobody")
			args := s.java(w, "client", port, w.clients[which])
			s.begin(java, args...)
			t.Cleanup(func() {
				s.cmd.Process.Kill() // Java has ended, unless the test has failed
				<-s.done
			})
			h, err := m.Accept(m.ctx, ctx, "", 0)
			if err != nil {
				t.Fatalf("our Accept of the Java client fails: %v\n%s", err,
					s.said())
			}
			if got := m.fact(h, "subject") + " " + m.fact(h, "verified"); got != want {
				t.Errorf("tls.Info gives subject and verified as %q, want %q", got,
					want)
			}
			if got := m.hear(h, isLine); got != "TLSv1.3 h2 CN=localhost\n" ||
				m.fact(h, "alpn") != "h2" {
				t.Errorf("Java reports %q of our server, want TLSv1.3, h2 and "+
					"CN=localhost; our side's alpn is %q, want h2", got,
					m.fact(h, "alpn"))
			}
			m.say(h, "good bye\n")
			if <-s.done; s.said() != "good bye\n" || !s.cmd.ProcessState.Success() {
				t.Errorf("Java prints %q and ends with %v; want \"good bye\" and "+
					"exit status 0", s.said(), s.cmd.ProcessState)
			}
		})
	}
}

func isLine(got string) bool { return strings.HasSuffix(got, "\n") }

// A Java server requires a certificate of our client. It sees the name of a good certificate, and
// refuses other clients by an alert.
func TestJavaKnowsItsClients(t *testing.T) {
	t.Parallel()
	java := needJava(t)
	w, s, port := newServer(t)
	args := s.java(w, "server", port, w.cert)
	s.serve(port, syscall.SIGTERM, java, args...)
	d := testd.Start(t)
	for which, cert := range w.clients {
		t.Run(which, func(t *testing.T) {
			m := newMine(t, d)
			h := m.dial(w, port, cert, "alpn", "h2,http/1.1")
			testkit.Must(t, m.Handshake(m.ctx, h))
			if cert != w.clients["a good one"] {
				_, err := m.Read(m.ctx, h, 1)
				failed(t, err, client.KindIO, "the peer sent the alert ")
				return
			}
			if got := m.hear(h,
				isLine); got != "TLSv1.3 http/1.1 CN="+clientName+"\n" ||
				m.fact(h, "alpn") != "http/1.1" {
				t.Errorf("Java reports %q of our client, want TLSv1.3, http/1.1 "+
					"and the name in its certificate; our side's alpn is %q, "+
					"want http/1.1", got, m.fact(h, "alpn"))
			}
			m.say(h, "good bye\n")
		})
	}
}
