package openssl_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/openssl"
)

// handshakes does the handshakes of both sides. Then each side sends one byte, and the other reads
// it. With TLS 1.3 a server checks the client's certificate after the client's handshake has ended,
// so only the byte shows the result. handshakes returns our first error, and the peer's.
func handshakes(t *testing.T, c *openssl.Conn, peer *tls.Conn) (ours, peers error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		err := peer.HandshakeContext(bounded(t))
		if err == nil {
			_, err = peer.Write([]byte{1})
		}
		if err == nil {
			_, err = peer.Read(make([]byte, 1))
		}
		if err != nil {
			peer.NetConn().Close()
		}
		done <- err
	}()
	ours = c.Handshake(bounded(t))
	if ours == nil {
		_, ours = c.Read(bounded(t), make([]byte, 1))
	}
	if ours == nil {
		_, ours = c.Write(bounded(t), []byte{2})
	}
	if ours != nil {
		c.Abort()
	}
	return ours, <-done
}

func server(t *testing.T, cfg openssl.ServerConfig, peer *tls.Config) (*openssl.Conn, *tls.Conn) {
	t.Helper()
	ctx, err := load(t).NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ours, peers := tcpPair(t)
	c, err := ctx.NewServer(ours)
	ctx.Free() // the connection needs no context any more, not even for its handshake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, tls.Client(peers, peer)
}

func client(t *testing.T, id identity, s openssl.ClientSettings, peer *tls.Config) (*openssl.Conn,
	*tls.Conn) {
	t.Helper()
	ours, peers := tcpPair(t)
	c, err := clientContext(t, load(t), id.ca.PEM()).NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Configure(s); err != nil {
		t.Fatal(err)
	}
	if peer.Certificates == nil {
		peer.Certificates = []tls.Certificate{id.cert.TLS()}
	}
	return c, tls.Server(peers, peer)
}

func own(cert *testcert.Cert) openssl.Identity {
	return openssl.Identity{Name: "test", Cert: cert.CertPEM, Key: cert.KeyPEM}
}

var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func TestTheServersFirstProtocolThatBothSpeakIsAgreedOn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		server, client []string
		want           string
		fails          bool
	}{
		{name: "server's order", server: []string{"h2", "http/1.1"},
			client: []string{"http/1.1", "h2"}, want: "h2"},
		{name: "one in common", server: []string{"h2", "http/1.1"},
			client: []string{"http/1.1"}, want: "http/1.1"},
		{name: "client offers none", server: []string{"h2"}, want: ""},
		{name: "server has none", client: []string{"h2"}, want: ""},
		{name: "no overlap", server: []string{"h2"}, client: []string{"imap"}, fails: true},
		{name: "a prefix is no match", server: []string{"h2"}, client: []string{"h2c"},
			fails: true},
	} {
		for version, max := range versions {
			t.Run(c.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				id := newIdentity(t)
				check := func(t *testing.T, conn *openssl.Conn, peer *tls.Conn) {
					ours, peers := handshakes(t, conn, peer)
					if c.fails {
						if ours == nil || peers == nil {
							t.Fatal("the handshake has succeeded:",
								ours, peers)
						}
						if !strings.Contains(ours.Error()+peers.Error(),
							"application protocol") {
							t.Errorf("our error: %v; the peer's: %v; "+
								"want \"application protocol\" in "+
								"one of them", ours, peers)
						}
						return
					}
					if ours != nil || peers != nil {
						t.Fatalf("our error: %v; the peer's: %v; want none",
							ours, peers)
					}
					info, err := conn.Info()
					theirs := peer.ConnectionState().NegotiatedProtocol
					if err != nil || info.ALPN != c.want || theirs != c.want {
						t.Errorf("agreed on %q (%v), the peer on %q; "+
							"want %q", info.ALPN, err, theirs, c.want)
					}
				}
				t.Run("as server", func(t *testing.T) {
					conn, peer := server(t, openssl.ServerConfig{Default: own(
						id.cert), ALPN: c.server},
						&tls.Config{RootCAs: id.ca.Pool(),
							ServerName: "localhost",
							NextProtos: c.client, MaxVersion: max})
					check(t, conn, peer)
				})
				t.Run("as client", func(t *testing.T) {
					if c.fails {
						conn, peer := client(t, id,
							openssl.ClientSettings{ALPN: c.client},
							&tls.Config{NextProtos: c.server,
								MaxVersion: max})
						ours, _ := handshakes(t, conn, peer)
						if ours == nil || !strings.Contains(ours.Error(),
							"no_application_protocol (120)") {
							t.Errorf("our error: %v, want the alert "+
								"no_application_protocol (120)",
								ours)
						}
						return
					}
					conn, peer := client(t, id,
						openssl.ClientSettings{ALPN: c.client},
						&tls.Config{NextProtos: c.server, MaxVersion: max})
					check(t, conn, peer)
				})
			})
		}
	}
}

func TestAServerAsksForCertificatesOfItsClients(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	stranger := testcert.NewCA(t, "Stranger")
	good := id.ca.Issue(t, testcert.Leaf{CN: "a client"}).TLS()
	bad := stranger.Issue(t, testcert.Leaf{CN: "a client"}).TLS()
	for _, c := range []struct {
		name string
		auth openssl.ClientAuth
		cert *tls.Certificate
		want string // in our error; "": the handshake succeeds
		who  string // the client's subject that we get, if the handshake succeeds
	}{
		{"none/shown", openssl.ClientAuthNone, &good, "", ""},
		{"request/none", openssl.ClientAuthRequest, nil, "", ""},
		{"request/good", openssl.ClientAuthRequest, &good, "", "/CN=a client"},
		{"request/wrong CA", openssl.ClientAuthRequest, &bad, "certificate verify failed",
			""},
		{"require/none", openssl.ClientAuthRequire, nil,
			"peer did not return a certificate", ""},
		{"require/good", openssl.ClientAuthRequire, &good, "", "/CN=a client"},
		{"require/wrong CA", openssl.ClientAuthRequire, &bad, "certificate verify failed",
			""},
	} {
		for version, max := range versions {
			t.Run(c.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				conf := &tls.Config{RootCAs: id.ca.Pool(), ServerName: "localhost",
					MaxVersion: max,
					GetClientCertificate: func(*tls.CertificateRequestInfo) (
						*tls.Certificate, error) {
						if c.cert == nil {
							return &tls.Certificate{}, nil
						}
						return c.cert, nil
					}}
				conn, peer := server(t, openssl.ServerConfig{Default: own(id.cert),
					ClientAuth: c.auth, ClientCAs: id.ca.PEM(),
					CAName: "ca.pem"}, conf)
				ours, peers := handshakes(t, conn, peer)
				if c.want != "" {
					if ours == nil || !strings.Contains(ours.Error(), c.want) ||
						peers == nil {
						t.Fatalf("our error: %v, want %q in it; the "+
							"peer's: %v, want any error", ours, c.want,
							peers)
					}
					return
				}
				if ours != nil || peers != nil {
					t.Fatalf("our error: %v; the peer's: %v; want none", ours,
						peers)
				}
				info, err := conn.Info()
				if err != nil || conn.PeerSubject() != c.who ||
					info.Verified != (c.who != "") {
					t.Errorf("the client's subject is %q, verified %v, %v; "+
						"want %q, %v", conn.PeerSubject(), info.Verified,
						err, c.who, c.who != "")
				}
			})
		}
	}
}

func TestAClientShowsItsCertificateWithTheChain(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	own := own(id.ca.Issue(t, testcert.Leaf{CN: "a client"}))
	own.Cert = append(own.Cert, id.ca.PEM()...)
	for version, max := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			conn, peer := client(t, id, openssl.ClientSettings{Identity: &own},
				&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert,
					ClientCAs: id.ca.Pool(), MaxVersion: max})
			ours, peers := handshakes(t, conn, peer)
			if ours != nil || peers != nil {
				t.Fatalf("our error: %v; the peer's: %v; want none", ours, peers)
			}
			if shown := peer.ConnectionState().PeerCertificates; len(shown) != 2 ||
				shown[0].Subject.CommonName != "a client" {
				t.Errorf("the client has shown %d certificates, want 2, its own "+
					"first", len(shown))
			}
		})
	}
}

func TestAKeyThatDoesNotFitIsRefusedBeforeTheHandshake(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	ours, _ := tcpPair(t)
	c, err := clientContext(t, load(t), id.ca.PEM()).NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wrong := own(id.cert)
	wrong.Key = id.ca.Issue(t, testcert.Leaf{CN: "other"}).KeyPEM
	var pem *openssl.PEMError
	if err := c.Configure(openssl.ClientSettings{Identity: &wrong}); !errors.As(err, &pem) ||
		pem.What != "key" {
		t.Errorf("Configure with the key of another certificate: %v, want a PEMError "+
			"about the key", err)
	}
}

func TestPinsAreCheckedBesidesTheCertificate(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	leaf, err := x509.ParseCertificate(id.cert.TLS().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	right := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for name, c := range map[string]struct {
		pins [][sha256.Size]byte
		ok   bool
	}{
		"right":              {[][sha256.Size]byte{right}, true},
		"right among others": {[][sha256.Size]byte{{1}, right}, true},
		"wrong":              {[][sha256.Size]byte{{1}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, peer := client(t, id, openssl.ClientSettings{Pins: c.pins},
				&tls.Config{})
			ours, _ := handshakes(t, conn, peer)
			var verify *openssl.VerifyError
			if c.ok && ours != nil || !c.ok && (!errors.As(ours, &verify) ||
				!strings.Contains(ours.Error(), "pins")) {
				t.Errorf("our error: %v; want success: %t, or else a "+
					"VerifyError about the pins", ours, c.ok)
			}
		})
	}
}

func TestAClientGetsTheCertificateOfTheNameThatItAsksFor(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	issue := func(name string) openssl.Identity {
		return own(ca.Issue(t, testcert.Leaf{CN: name, DNS: []string{name}}))
	}
	cfg := openssl.ServerConfig{Default: issue("default.test"), ALPN: []string{"h2"},
		Hosts: map[string]openssl.Identity{"a.test": issue("a.test"),
			"*.b.test": issue("*.b.test")}}
	for asked, want := range map[string]string{
		"default.test": "default.test", "a.test": "a.test", "A.Test": "a.test",
		"x.b.test":   "*.b.test",
		"x.y.b.test": "default.test", "b.test": "default.test", "": "default.test",
	} {
		for version, max := range versions {
			t.Run(asked+"/"+version, func(t *testing.T) {
				t.Parallel()
				conn, peer := server(t, cfg,
					&tls.Config{InsecureSkipVerify: true, ServerName: asked,
						MaxVersion: max, NextProtos: []string{"h2"}})
				if ours, peers := handshakes(t, conn, peer); ours != nil ||
					peers != nil {
					t.Fatalf("our error: %v; the peer's: %v; want none", ours,
						peers)
				}
				state := peer.ConnectionState()
				got := state.PeerCertificates[0].Subject.CommonName
				if got != want || state.NegotiatedProtocol != "h2" {
					t.Errorf("got the certificate of %s and %q, want %s and h2",
						got, state.NegotiatedProtocol, want)
				}
				if info, err := conn.Info(); err != nil ||
					info.ServerName != asked {
					t.Errorf("Info says that the client has asked for %q, %v; "+
						"want %q", info.ServerName, err, asked)
				}
			})
		}
	}
}

func TestInfoIsWhatThePeerSaysToo(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, peer := s.pair(t)
			if _, err := c.Info(); !errors.Is(err, openssl.ErrNoHandshake) {
				t.Errorf("Info before the handshake: %v, want ErrNoHandshake", err)
			}
			go func() {
				if peer.Handshake() == nil {
					io.Copy(io.Discard, peer)
				}
			}()
			if err := c.Handshake(bounded(t)); err != nil {
				t.Fatal(err)
			}
			info, err := c.Info()
			if err != nil {
				t.Fatal(err)
			}
			state := peer.ConnectionState()
			binding, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil,
				32)
			if err != nil || !bytes.Equal(binding, info.ChannelBinding) {
				t.Errorf("Info has the channel binding %x, the peer has %x, %v",
					info.ChannelBinding, binding, err)
			}
			if info.Version != c.Version() || info.Cipher == "" || info.Resumed {
				t.Errorf("Info is %+v, want the version %s, a cipher, and no "+
					"resumption", info, c.Version())
			}
			if name := "localhost"; info.ServerName != name {
				t.Errorf("Info has the server name %q, want %q", info.ServerName,
					name)
			}
			if s.server {
				if info.Chain != nil || info.Verified {
					t.Errorf("the client has shown no certificate, but Info "+
						"says %+v", info)
				}
				return
			}
			if len(info.Chain) != 1 || !info.Verified {
				t.Fatalf("Info has %d certificates, verified %v; want 1, true",
					len(info.Chain), info.Verified)
			}
			leaf, err := x509.ParseCertificate(info.Chain[0])
			if err != nil || leaf.Subject.CommonName != "localhost" ||
				sha256.Sum256(leaf.RawSubjectPublicKeyInfo) != info.KeySHA256 {
				t.Errorf("Info's first certificate is not the server's, or "+
					"KeySHA256 is not of its key: %v", err)
			}
			c.Close()
			if _, err := c.Info(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Info after Close: %v, want net.ErrClosed", err)
			}
		})
	}
}
