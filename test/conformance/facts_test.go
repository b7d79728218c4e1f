package conformance

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlsd/internal/ours"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// The facts of tls.Info. Some tests connect our client with our server, and their facts must agree.
// Others connect our client with crypto/tls, which knows some of the facts.

// A side is one of our ends of a connection. The fields shown and verify say what the facts of this
// end must tell about the other end.
type side struct {
	t      *testing.T
	e      us
	s      ours.Session
	h      client.Handle
	server bool
	shown  *testcert.Cert // the other end's certificate; nil: none
	verify bool           // shown must have been verified
}

func (x *side) fact(name string) string {
	x.t.Helper()
	text, err := x.s.HandleInfo(testkit.Bounded(x.t), x.h, name)
	testkit.Must(x.t, err)
	return text
}

// x.of(text) calls the function text with the other end's certificate, and returns the result. If
// the other end has no certificate, x.of returns "".
func (x *side) of(text func(c *testcert.Cert) string) string {
	if x.shown == nil {
		return ""
	}
	return text(x.shown)
}

func seconds(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// facts lists all facts of a connection. want returns the right text. Its parameter got is the text
// at this end, and others is the text of the same fact at the other end. If the right text depends
// on the library, want checks got, and returns others.
var facts = []struct {
	name string
	want func(x *side, got, others string) string
}{
	{"version", func(*side, string, string) string { return "TLSv1.3" }},
	{"cipher", func(_ *side, got, others string) string {
		return oneOf(got, strings.HasPrefix(got, "TLS_"), others)
	}},
	{"alpn", func(*side, string, string) string { return "h2" }},
	{"group", func(_ *side, got, others string) string {
		if libraryIsOld() {
			return "" // OpenSSL tells the group since 3.0
		}
		return oneOf(got, got != "", others)
	}},
	{"resumed", func(*side, string, string) string { return "0" }},
	{"server-name", func(*side, string, string) string { return "localhost" }},
	{"peer-address", func(x *side, got,
		_ string) string {
		return oneOf(got, strings.HasPrefix(got, "127.0.0.1:"), got)
	}},
	{"local-address", func(x *side, got,
		_ string) string {
		return oneOf(got, strings.HasPrefix(got, "127.0.0.1:"), got)
	}},
	{"subject", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string {
			return "/CN=" + c.Cert.Subject.CommonName
		})
	}},
	{"issuer", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string {
			return "/CN=" + c.Cert.Issuer.CommonName
		})
	}},
	{"serial", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string { return c.Cert.SerialNumber.Text(16) })
	}},
	{"san", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string {
			var names []string
			for _, n := range c.Cert.DNSNames {
				names = append(names, "DNS:"+n)
			}
			for _, ip := range c.Cert.IPAddresses {
				names = append(names, "IP:"+ip.String())
			}
			return strings.Join(names, ", ")
		})
	}},
	{"not-before", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string { return seconds(c.Cert.NotBefore) })
	}},
	{"not-after", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string { return seconds(c.Cert.NotAfter) })
	}},
	{"sha256", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string { return sum(c.Cert.Raw) })
	}},
	{"key-sha256", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string {
			return sum(c.Cert.RawSubjectPublicKeyInfo)
		})
	}},
	{"pem", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string {
			own, _, _ := strings.Cut(string(c.CertPEM), "-----END CERTIFICATE-----\n")
			return own + "-----END CERTIFICATE-----\n"
		})
	}},
	{"chain", func(x *side, _, _ string) string {
		return x.of(func(c *testcert.Cert) string { return string(c.CertPEM) })
	}},
	{"verified", func(x *side, _, _ string) string {
		return map[bool]string{true: "1", false: "0"}[x.verify]
	}},
	{"channel-binding", func(_ *side, got,
		others string) string {
		return oneOf(got, len(got) == 64, others)
	}},
	{"unsent", func(*side, string, string) string { return "0" }},
}

// oneOf returns the text that a fact must have. If good is set, the result is others, the text at
// the other end. If good is not set, the result differs from got, so that the test fails.
func oneOf(got string, good bool, others string) string {
	if good {
		return others
	}
	return "something else than " + strconv.Quote(got)
}

// libraryIsOld says whether our libssl is 1.1.1. It asks OpenSSL's command line, which has the same
// version as our libssl, also in make libssl-matrix.
func libraryIsOld() bool { return opensslIsOld() }

// connectOurs makes a connection between our client and our server. The client shows the
// certificate show. If show is nil, it shows none.
func connectOurs(t *testing.T, e us, w *world, show *testcert.Cert) (cl, sv *side) {
	t.Helper()
	ctx := testkit.Bounded(t)
	s := e.open(t, w.ca.File)
	cert := issue(t, w.ca.Intermediate(t, "Between"), localhost)
	sc, err := s.NewServerContext(ctx, cert.CertFile, cert.KeyFile)
	testkit.Must(t, err)
	for _, o := range [][2]string{{"alpn", "h2,http/1.1"}, {"client-ca", w.ca.File},
		{"client-cert", "request"}} {
		testkit.Must(t, s.SetOption(ctx, sc, o[0], o[1]))
	}
	port, err := s.Listen(ctx, sc, "127.0.0.1", 0)
	testkit.Must(t, err)
	accepted := make(chan client.Handle, 1)
	go func() {
		h, err := s.Accept(ctx, sc, "", 0)
		if err != nil {
			t.Errorf("Accept: %v", err)
		}
		accepted <- h
	}()
	h, err := s.NewClient(ctx, "127.0.0.1", port)
	testkit.Must(t, err)
	testkit.Must(t, s.SetOption(ctx, h, "alpn", "http/1.1,h2"))
	testkit.Must(t, s.SetOption(ctx, h, "server-name", "localhost"))
	if show != nil {
		testkit.Must(t, s.SetCertificate(ctx, h, "", show.CertFile, show.KeyFile))
	}
	testkit.Must(t, s.Handshake(ctx, h))
	return &side{t, e, s, h, false, cert, true}, &side{t, e, s, <-accepted, true, show,
		show != nil}
}

// Each fact of a connection has the right text at both ends, whether tls.Info is asked for this
// fact or for all facts.
func TestEachFactIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		for name, show := range map[string]*testcert.Cert{"both have certificates": issue(t,
			w.ca.Intermediate(t, "Under it"), testcert.Leaf{CN: "a client",
				DNS: []string{"client.test"}}), "the client has none": nil} {
			t.Run(name, func(t *testing.T) {
				cl, sv := connectOurs(t, e, w, show)
				cl.t, sv.t = t, t
				cl.tells(sv)
				sv.tells(cl)
			})
		}
	})
}

// x.tells(other) checks each fact of x, and that x has no other facts. other is the other end of
// the connection.
func (x *side) tells(other *side) {
	x.t.Helper()
	var all map[string]string
	testkit.Must(x.t, json.Unmarshal([]byte(x.fact("")), &all))
	for _, f := range facts {
		got := x.fact(f.name)
		want := f.want(x, got, other.fact(f.name))
		if got != want || all[f.name] != got {
			x.t.Errorf("our end is the server: %v; tls.Info of the fact %s returns "+
				"%q, and tls.Info of all facts has %q for it; want %q both times",
				x.server, f.name, got, all[f.name], want)
		}
		delete(all, f.name)
	}
	if len(all) > 0 {
		x.t.Errorf("tls.Info returned the facts %q, which the list of facts in this test "+
			"lacks", slices.Sorted(maps.Keys(all)))
	}
	if x.fact("peer-address") != other.fact("local-address") {
		x.t.Error("the fact peer-address must be the fact local-address of the other end")
	}
}

// The facts of our client agree with those of its peer, a server of crypto/tls, in both versions of
// TLS.
func TestFactsAreThePeersToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	show := issue(t, w.ca, testcert.Leaf{CN: "a client"})
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
				Certificates: []tls.Certificate{w.cert.TLS()},
				ClientCAs:    w.ca.Pool(),
				ClientAuth:   tls.RequireAndVerifyClientCert,
				NextProtos:   []string{"h2"},
				MinVersion:   version,
				MaxVersion:   version,
			})
			testkit.Must(t, err)
			t.Cleanup(func() { l.Close() })
			come := make(chan *tls.Conn, 1)
			go func() {
				defer close(come)
				c, err := l.Accept()
				if err != nil {
					return // the listener was closed
				}
				if err := c.(*tls.Conn).Handshake(); err != nil {
					t.Errorf("the handshake of the crypto/tls server failed: "+
						"%v", err)
				}
				come <- c.(*tls.Conn)
			}()
			ctx := testkit.Bounded(t)
			s := e.open(t, w.ca.File)
			h, err := s.NewClient(ctx, "localhost", l.Addr().(*net.TCPAddr).Port)
			testkit.Must(t, err)
			testkit.Must(t, s.SetOption(ctx, h, "alpn", "h2"))
			testkit.Must(t, s.SetCertificate(ctx, h, "", show.CertFile, show.KeyFile))
			testkit.Must(t, s.Handshake(ctx, h))
			x := &side{t: t, e: e, s: s, h: h}
			peer := <-come
			state := peer.ConnectionState()
			spoken := strings.Replace(tls.VersionName(version), "TLS ", "TLSv", 1)
			const label = "EXPORTER-Channel-Binding" // RFC 9266 section 2
			binding, err := state.ExportKeyingMaterial(label, nil, 32)
			testkit.Must(t, err)
			for name, want := range map[string]string{
				"channel-binding": hex.EncodeToString(binding),
				"alpn":            state.NegotiatedProtocol,
				"server-name":     state.ServerName,
				"version":         spoken,
				"sha256":          sum(w.cert.Cert.Raw),
				"peer-address":    peer.LocalAddr().String(),
				"local-address":   peer.RemoteAddr().String(),
			} {
				if got := x.fact(name); got != want {
					t.Errorf("our client's fact %s is %q, want %q, which "+
						"crypto/tls has", name, got, want)
				}
			}
			if sum(state.PeerCertificates[0].Raw) != sum(show.Cert.Raw) {
				t.Error("the server got a client certificate that is not our " +
					"client's")
			}
			peer.Close()
		}
	})
}

// A client that skips verification has the facts, too. The fact "verified" is 0.
func TestFactsOfAnInsecureClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := serve(t, w.cert)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		ctx := testkit.Bounded(t)
		s := e.open(t, w.other.File) // a CA that has not signed the server's certificate
		h, err := s.NewClient(ctx, "localhost", port)
		testkit.Must(t, err)
		testkit.Must(t, s.SetInsecureSkipVerify(ctx, h, true))
		testkit.Must(t, s.Handshake(ctx, h))
		x := &side{t: t, e: e, s: s, h: h}
		if got := x.fact("verified") + x.fact("subject"); got != "0/CN=localhost" {
			t.Errorf("verified and subject are %q; want 0 and /CN=localhost", got)
		}
	})
}
