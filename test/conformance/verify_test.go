package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/internal/ours"
	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// A certificate is accepted or refused as it must be. A refusal says why.

// X509_V_ERR numbers, openssl-verification-options(1).
const (
	noIssuer         = 20
	selfSigned       = 18
	selfSignedAtRoot = 19
	notYetValid      = 9
	hasExpired       = 10
	wrongName        = 62
	wrongAddress     = 64
)

// A served is a server's certificate, with the verdict that a client must give.
type served struct {
	name    string
	cert    func(*testing.T, *world) *testcert.Cert
	host    string // the name that the client verifies; empty: localhost
	code    int    // X509_V_ERR of the refusal; 0: the client accepts
	depth   int
	subject string // depth and subject are those of the refused certificate

	// s_client accepts this certificate: it uses the common name, which RFC 9525 section 2
	// forbids
	opensslTakesIt bool
}

var certificates = []served{
	{name: "right name", cert: leaf(testcert.Leaf{CN: "localhost",
		DNS: []string{"localhost"}})},
	{name: "right address", cert: leaf(testcert.Leaf{CN: "somebody",
		IPs: []string{"127.0.0.1"}}), host: "127.0.0.1"},
	{name: "right among several names", cert: leaf(testcert.Leaf{CN: "x",
		DNS: []string{"a.test", "localhost"}, IPs: []string{"192.0.2.1"}})},
	{name: "by an intermediate", cert: func(t *testing.T, w *world) *testcert.Cert {
		return secret(w.ca.Intermediate(t, "Between").Issue(t,
			testcert.Leaf{CN: "localhost", DNS: []string{"localhost"}}))
	}},
	{name: "RSA", cert: leaf(testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
		Key: testcert.RSA})},
	{name: "Ed25519", cert: leaf(testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
		Key: testcert.Ed25519})},

	{name: "expired", cert: leaf(testcert.Leaf{CN: "old", DNS: []string{"localhost"},
		Expired: true}),
		code: hasExpired, subject: "/CN=old"},
	{name: "not yet valid", cert: leaf(testcert.Leaf{CN: "new", DNS: []string{"localhost"},
		NotYet: true}),
		code: notYetValid, subject: "/CN=new"},
	{name: "self-signed", cert: func(t *testing.T, w *world) *testcert.Cert {
		return secret(testcert.SelfSigned(t, testcert.Leaf{CN: "self",
			DNS: []string{"localhost"}}))
	}, code: selfSigned, subject: "/CN=self"},
	{name: "by an untrusted root", cert: func(t *testing.T, w *world) *testcert.Cert {
		return issue(t, w.other, testcert.Leaf{CN: "stranger", DNS: []string{"localhost"}})
	}, code: noIssuer, subject: "/CN=stranger"},
	{name: "by an intermediate of an untrusted root",
		cert: func(t *testing.T, w *world) *testcert.Cert {
			return secret(w.other.Intermediate(t, "Strange Between").Issue(t,
				testcert.Leaf{CN: "stranger", DNS: []string{"localhost"}}))
		}, code: noIssuer, depth: 1, subject: "/CN=Strange Between"},
	{name: "another name", cert: leaf(testcert.Leaf{CN: "localhost",
		DNS: []string{"elsewhere.test"}}),
		code: wrongName, subject: "/CN=localhost"},
	{name: "another address", cert: leaf(testcert.Leaf{CN: "127.0.0.1",
		IPs: []string{"127.0.0.2"}}), host: "127.0.0.1",
		code: wrongAddress, subject: "/CN=127.0.0.1"},
	{name: "a name where an address is wanted", cert: leaf(testcert.Leaf{CN: "localhost",
		DNS: []string{"localhost", "127.0.0.1"}}), host: "127.0.0.1",
		code: wrongAddress, subject: "/CN=localhost"},
	{name: "an address where a name is wanted", cert: leaf(testcert.Leaf{CN: "somebody",
		IPs: []string{"127.0.0.1"}}),
		code: wrongName, subject: "/CN=somebody"},
	{name: "name only as the common name", cert: leaf(testcert.Leaf{CN: "localhost"}),
		code: wrongName, subject: "/CN=localhost", opensslTakesIt: true},
	{name: "address only as the common name", cert: leaf(testcert.Leaf{CN: "127.0.0.1"}),
		host: "127.0.0.1",
		code: wrongAddress, subject: "/CN=127.0.0.1"},
}

func leaf(l testcert.Leaf) func(*testing.T, *world) *testcert.Cert {
	return func(t *testing.T, w *world) *testcert.Cert { return issue(t, w.ca, l) }
}

func (c served) wanted() string {
	if c.host == "" {
		return "localhost"
	}
	return c.host
}

// Each client gives the verdict of the table certificates, with each server. If a client refuses,
// the server's accept fails. Our server then serves the next client.
func TestCertificatesAreJudged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	overPairs(t, needs{}, func(t *testing.T, cl, sv endpoint) {
		for _, c := range certificates {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				judge(t, w, cl, sv, c)
			})
		}
	})
}

func judge(t *testing.T, w *world, cl, sv endpoint, c served) {
	l := sv.listen(t, listenOptions{cert: c.cert(t, w)})
	to := address{c.wanted(), l.port()}
	accepted := accepting(t, l)
	s, err := cl.dial(t, to, dialOptions{ca: w.ca.File})
	a := <-accepted
	if want := c.expectation(cl); judgement(err) != want {
		t.Fatalf("%s as the client: the error is %v; it must mean: %s", cl, err, want)
	}
	if err == nil {
		if a.err != nil {
			t.Fatalf("the client has accepted the certificate; %s as the server "+
				"fails: %v", sv, a.err)
		}
		greet(t, cl, sv, s, a.stream)
		return
	}
	if a.err == nil {
		t.Errorf("the client has refused the certificate; the accept of %s succeeded, "+
			"want an error", sv)
	}
	if !isOurs(sv) {
		return
	}
	if !isKind(a.err, client.KindHandshake) || !mentions(failure(a.err), "alert") {
		t.Errorf("the client has refused, and our Accept says %v; want kind handshake, "+
			"with an alert", a.err)
	}
	// The same context serves the next client.
	accepted = accepting(t, l)
	if s, err = cl.dial(t, to, dialOptions{insecure: true}); err != nil {
		t.Fatalf("%s as the client, without verification: %v; want success", cl, err)
	}
	if a = <-accepted; a.err != nil {
		t.Fatalf("the next Accept: %v", a.err)
	}
	greet(t, cl, sv, s, a.stream)
}

// The verdicts that every client can give.
const (
	isFine       = "accepted"
	badTime      = "not valid at this time"
	badAuthority = "not by a trusted authority"
	badName      = "not for this name or address"
)

func (c served) expectation(cl endpoint) string {
	if c.opensslTakesIt && cl.String() == "openssl" {
		return isFine
	}
	return judgementOf(c.code)
}

func judgementOf(code int) string {
	switch code {
	case 0:
		return isFine
	case notYetValid, hasExpired:
		return badTime
	case selfSigned, selfSignedAtRoot, noIssuer:
		return badAuthority
	case wrongName, wrongAddress:
		return badName
	}
	return fmt.Sprintf("verify code %d", code)
}

var (
	opensslVerdict = regexp.MustCompile(`verify error:num=(\d+):`)
	ourVerdict     = regexp.MustCompile(`certificate verify failed: .* \((\d+)\) at depth `)
)

// judgement returns the verdict that a client's error means.
func judgement(err error) string {
	var (
		own     *client.Error
		cli     *opensslError
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
	)
	switch {
	case err == nil:
		return isFine
	case errors.As(err, &own) && own.Kind == client.KindVerify && own.Data.Verify != nil:
		return judgementOf(own.Data.Verify.Code)
	case errors.As(err, &own) && !tells(own):
		if m := ourVerdict.FindStringSubmatch(own.Message); m != nil {
			n, _ := strconv.Atoi(m[1])
			return judgementOf(n)
		}
	case errors.As(err, &cli):
		if m := opensslVerdict.FindStringSubmatch(cli.text); m != nil {
			n, _ := strconv.Atoi(m[1])
			return judgementOf(n)
		}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return badTime
	case errors.As(err, &unknown):
		return badAuthority
	case errors.As(err, &name):
		return badName
	}
	return fmt.Sprintf("some other error: %v", err)
}

// Our error names the refused certificate, the reason in words and numbers, and the trust store.
// SetInsecureSkipVerify turns the verification of one connection off, and on again.
func TestARefusedCertificateIsExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		for _, c := range certificates {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				cert := c.cert(t, w)
				l := goEndpoint{}.listen(t, listenOptions{cert: cert})
				ctx, s := testkit.Bounded(t), e.open(t, w.ca.File)
				shake := func(skip ...bool) error {
					t.Helper()
					accepted := accepting(t, l)
					h, err := s.NewClient(ctx, c.wanted(), l.port())
					if err != nil {
						t.Fatal(err)
					}
					for _, on := range skip {
						err := s.SetInsecureSkipVerify(ctx, h, on)
						if err != nil {
							t.Fatal(err)
						}
					}
					err = s.Handshake(ctx, h)
					a := <-accepted
					if err == nil && a.err == nil {
						us := ourStream{&ours.Stream{TB: t, Ctx: ctx, S: s,
							H: h}}
						greet(t, e, goEndpoint{}, us, a.stream)
					}
					return err
				}
				check := func(err error) {
					t.Helper()
					if c.code == 0 {
						if err != nil {
							t.Errorf("a good certificate was "+
								"refused: %v", err)
						}
						return
					}
					e := failure(err)
					if !isKind(err, client.KindVerify) {
						t.Fatalf("the handshake: %v; want kind verify", err)
					}
					if !mentions(e, "tls.Handshake",
						fmt.Sprintf("(%d) at depth %d", c.code, c.depth),
						c.subject, w.ca.File) {
						t.Errorf("the error's text is %q; want code %d "+
							"at depth %d, "+
							"subject %s, and store %s", e.Message,
							c.code, c.depth, c.subject, w.ca.File)
					}
					if tells(e) {
						v := e.Data.Verify
						if v == nil || v.Code != c.code ||
							v.Depth != c.depth ||
							v.Subject != c.subject || v.Reason == "" ||
							!strings.Contains(v.Store, w.ca.File) {
							t.Fatalf("the error's detail is %+v; "+
								"want code %d, "+
								"depth %d, subject %s, a reason, "+
								"and the store %s", v, c.code,
								c.depth, c.subject, w.ca.File)
						}
						if !mentions(e, v.Reason, v.Store) {
							t.Errorf("the error's text is %q; it "+
								"must have this detail: %+v",
								e.Message, *v)
						}
					}
					if (c.code == wrongName || c.code == wrongAddress) &&
						!mentions(e, c.wanted()) {
						t.Errorf("the error's text is %q; it must name "+
							"the host that the certificate lacks: "+
							"%s", e.Message,
							c.wanted())
					}
					if last, err := s.LastError(ctx); err != nil ||
						last != e.Message {
						t.Errorf("tls.LastError: %q, %v; want %q", last,
							err, e.Message)
					}
				}
				check(shake())
				if err := shake(true); err != nil {
					t.Errorf("the handshake with verification off: %v", err)
				}
				check(shake(true, false))
				check(shake()) // a new connection verifies again
			})
		}
	})
}

// tls.PeerCertSubject returns the one-line form of X509_NAME_oneline(3). OpenSSL's command line
// prints it with -nameopt compat.
func TestPeerCertSubjectIsTheOneLineForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		for _, c := range []struct {
			name pkix.Name
			has  string
		}{
			{pkix.Name{Country: []string{"DE"}, Organization: []string{"Some Co"},
				CommonName: "localhost"}, "/C=DE/O=Some Co/CN=localhost"},
			{pkix.Name{CommonName: "a/b=c"}, "/CN=a"},
			{pkix.Name{CommonName: "Müller"}, `/CN=M\xC3\xBCller`},
			// longer than any buffer
			{pkix.Name{CommonName: strings.Repeat("x", 1000)},
				strings.Repeat("x", 1000)},
			{pkix.Name{}, ""},
		} {
			cert := issue(t, w.ca, testcert.Leaf{Subject: &c.name,
				DNS: []string{"localhost"}})
			out, err := exec.Command("openssl", "x509", "-in", cert.CertFile, "-noout",
				"-subject", "-nameopt", "compat").Output()
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(strings.TrimPrefix(string(out), "subject="))
			s, _ := connect(t, w, e, goEndpoint{}, dialOptions{},
				listenOptions{cert: cert})
			if got := s.peerSubject(); got != want || !strings.Contains(got, c.has) {
				t.Errorf("subject %q; want %q, as openssl prints it, with %q in "+
					"it", got, want, c.has)
			}
		}
	})
}

// SetCaBundle sets the trust store of clients that its session opens later. A failed SetCaBundle
// changes nothing.
func TestNewClientsUseTheLatestCaBundle(t *testing.T) {
	t.Parallel()
	a, b := newWorld(t), newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		la, lb := serve(t, a.cert), serve(t, b.cert)
		ctx := testkit.Bounded(t)
		open := func(s ours.Session, port int) client.Handle {
			t.Helper()
			h, err := s.NewClient(ctx, "localhost", port)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		check := func(s ours.Session, h client.Handle, ok bool, store string) {
			t.Helper()
			err := s.Handshake(ctx, h)
			if ok && err != nil {
				t.Errorf("the handshake of handle %d: %v; want success", h, err)
			}
			if !ok && (!isKind(err, client.KindVerify) ||
				!mentions(failure(err), "trust store: "+store)) {
				t.Errorf("the handshake of handle %d: %v; want kind verify, and "+
					"the trust store %s", h, err,
					store)
			}
		}
		s, other := e.open(t, a.ca.File), e.open(t, b.ca.File)

		before := open(s, la)
		beforeB := open(s, lb)
		if err := s.SetCaBundle(ctx, b.ca.File); err != nil {
			t.Fatal(err)
		}
		after := open(s, lb)
		afterA := open(s, la)
		check(s, before, true, "")              // opened while a.ca was set
		check(s, beforeB, false, a.ca.File)     // opened while a.ca was set
		check(s, after, true, "")               // opened while b.ca was set
		check(s, afterA, false, b.ca.File)      // opened while b.ca was set
		check(other, open(other, lb), true, "") // another session keeps its own bundle

		if err := s.SetCaBundle(ctx, a.cert.KeyFile); err == nil {
			t.Error("SetCaBundle of a file that has only a key succeeded, want an " +
				"error")
		}
		check(s, open(s, lb), true, "") // the old store is still in use
		check(s, open(s, la), false, b.ca.File)

		if err := s.SetCaBundle(ctx, a.ca.File); err != nil {
			t.Fatal(err)
		}
		check(s, open(s, la), true, "")
		check(s, open(s, lb), false, a.ca.File)
		check(other, open(other, la), false, b.ca.File)
	})
}

// serve starts a server of crypto/tls. It accepts clients until the test ends, and drops their
// data.
func serve(t *testing.T, cert *testcert.Cert) (port int) {
	t.Helper()
	l := goEndpoint{}.listen(t, listenOptions{cert: cert}).(goListener)
	var work sync.WaitGroup
	// The test opens its sessions after this server. Cleanups run in reverse order, so the
	// sessions are closed first, and work.Wait does not hang.
	t.Cleanup(func() {
		l.l.Close()
		work.Wait()
	})
	work.Go(func() {
		for {
			nc, err := l.l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(testkit.Patience))
				io.Copy(io.Discard, tls.Server(nc, l.cfg))
			})
		}
	})
	return l.port()
}

// Without SetCaBundle a client trusts the system's store. The daemon's environment can name another
// store, by OpenSSL's variable SSL_CERT_FILE.
func TestWithoutACaBundleTheSystemsStoreIsUsed(t *testing.T) {
	t.Parallel()
	needsLevel(t, setEnv)
	w := newWorld(t)
	for name, c := range map[string]struct {
		env   []string
		ok    bool
		store string // what the error must say about the store
	}{
		"the system's own": {nil, false, "system"},
		"SSL_CERT_FILE": {[]string{"SSL_CERT_FILE=" + w.ca.File,
			"SSL_CERT_DIR=/nonexistent"}, true, ""},
		"another's": {[]string{"SSL_CERT_FILE=" + w.other.File,
			"SSL_CERT_DIR=/nonexistent"}, false, w.other.File},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := daemonWith(t, testd.Options{Env: c.env})
			for _, l := range []us{{ours.Daemon{D: d}}, {ours.Plugin{D: d}}} {
				if level != "" && l.String() != level {
					continue
				}
				_, err := l.dial(t, address{"localhost", serve(t, w.cert)},
					dialOptions{})
				if c.ok && err != nil {
					t.Errorf("dial at the level %s: %v; want success", l, err)
				}
				if !c.ok && (!isKind(err, client.KindVerify) ||
					!mentions(failure(err), c.store)) {
					t.Errorf("dial at the level %s: %v; want kind verify, "+
						"with %q", l, err,
						c.store)
				}
			}
		})
	}
}
