package openssl_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/openssl"
)

// A resumer makes connections to servers with one configuration. All connections use one cache of
// sessions.
type resumer struct {
	t     *testing.T
	id    identity
	cache *openssl.SessionCache
	peer  *tls.Config // of all servers, so they share ticket keys
}

func newResumer(t *testing.T, version uint16) *resumer {
	t.Helper()
	id := newIdentity(t)
	r := &resumer{t: t, id: id, cache: new(openssl.SessionCache), peer: &tls.Config{
		Certificates: []tls.Certificate{id.cert.TLS()}, MinVersion: version,
		MaxVersion: version, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert,
	}}
	t.Cleanup(r.cache.Free)
	return r
}

// wishes are the settings of one connection.
type wishes struct {
	settings openssl.ClientSettings
	host     string // "localhost" if empty
	ca       []byte // if nil, the CA of the identity
	insecure bool
	tls13    bool // the context requires TLS 1.3
}

// connect makes a connection, closes it in good order, and returns its Info. The test fails if the
// two sides do not agree on whether a session was resumed.
func (r *resumer) connect(w wishes) openssl.Info {
	r.t.Helper()
	info, err := r.try(w)
	if err != nil {
		r.t.Fatal(err)
	}
	return info
}

func (r *resumer) try(w wishes) (openssl.Info, error) {
	r.t.Helper()
	ours, peers := tcpPair(r.t)
	if w.host == "" {
		w.host = "localhost"
	}
	if w.ca == nil {
		w.ca = r.id.ca.PEM()
	}
	ctx := clientContext(r.t, load(r.t), w.ca)
	if w.tls13 {
		ctx.RequireTLS13()
	}
	c, err := ctx.NewClient(ours, w.host)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	w.settings.Sessions = r.cache
	if err := errors.Join(c.SetVerify(!w.insecure), c.Configure(w.settings)); err != nil {
		r.t.Fatal(err)
	}
	peer := tls.Server(peers, r.peer)
	defer peer.Close()
	mine, theirs := handshakes(r.t, c, peer)
	if mine != nil {
		return openssl.Info{}, mine
	}
	if theirs != nil {
		r.t.Fatal(theirs)
	}
	info, err := c.Info()
	if err != nil || info.Resumed != peer.ConnectionState().DidResume {
		r.t.Fatalf("resumed: %v (%v), and the peer says %v", info.Resumed, err,
			peer.ConnectionState().DidResume)
	}
	return info, nil
}

func TestAClientResumesASession(t *testing.T) {
	t.Parallel()
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newResumer(t, version)
			first := r.connect(wishes{})
			if first.Resumed || !first.Verified {
				t.Fatalf("the first connection: %+v, want verified and not resumed",
					first)
			}
			for n := range 3 { // each leaves a session for the next one
				again := r.connect(wishes{})
				if !again.Resumed || !again.Verified ||
					again.KeySHA256 != first.KeySHA256 ||
					again.Issuer != first.Issuer ||
					!slices.EqualFunc(again.Chain, first.Chain, slices.Equal) {
					t.Errorf("connection %d after the first: resumed %v, "+
						"verified %v, key %x; want true, true, and the "+
						"key %x, issuer and chain of the first", n+1,
						again.Resumed, again.Verified, again.KeySHA256,
						first.KeySHA256)
				}
			}
		})
	}
}

func TestSettingsThatDifferDoNotResume(t *testing.T) {
	t.Parallel()
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newResumer(t, version)
			leaf, err := x509.ParseCertificate(r.id.cert.TLS().Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			pin := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
			own := own(r.id.ca.Issue(t, testcert.Leaf{CN: "client"}))
			different := map[string]wishes{
				"place": {settings: openssl.ClientSettings{Place: "localhost:2"}},
				"name":  {host: "127.0.0.1"},
				"CA bundle": {ca: append(r.id.ca.PEM(),
					testcert.NewCA(t, "Other CA").PEM()...)},
				"no verification": {insecure: true},
				"protocols": {settings: openssl.ClientSettings{ALPN: []string{
					"h2"}}},
				"other protocols": {settings: openssl.ClientSettings{ALPN: []string{
					"http/1.1"}}},
				"pins": {settings: openssl.ClientSettings{
					Pins: [][sha256.Size]byte{pin}}},
				"client certificate": {settings: openssl.ClientSettings{
					Identity: &own}},
			}
			if version == tls.VersionTLS13 {
				different["version"] = wishes{
					settings: openssl.ClientSettings{TLS13: true}}
			}
			r.connect(wishes{})
			for name, w := range different {
				if r.connect(w).Resumed {
					t.Errorf("a connection with another %s has resumed", name)
				}
				if !r.connect(w).Resumed {
					t.Errorf("a second connection with the other %s "+
						"has not resumed",
						name)
				}
			}
			if !r.connect(wishes{}).Resumed {
				t.Error("the session of the first connection is lost")
			}
		})
	}
	t.Run("the policy's version", func(t *testing.T) {
		t.Parallel()
		r := newResumer(t, tls.VersionTLS13)
		r.connect(wishes{})
		if r.connect(wishes{tls13: true}).Resumed {
			t.Error("a context that requires TLS 1.3 has resumed a session of a " +
				"context that does not")
		}
	})
}

func TestAConnectionThatIsRefusedLeavesNoSession(t *testing.T) {
	t.Parallel()
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newResumer(t, version)
			other := testcert.NewCA(t, "Other CA").PEM()
			for what, w := range map[string]wishes{
				"the wrong name":      {host: "example.com"},
				"the wrong authority": {ca: other},
				"the wrong pin": {settings: openssl.ClientSettings{
					Pins: [][sha256.Size]byte{{1}}}},
			} {
				for range 2 {
					if info, err := r.try(w); !errors.As(err,
						new(*openssl.VerifyError)) {
						t.Errorf("a connection with %s: %+v, %v; want a "+
							"VerifyError", what, info, err)
					}
				}
			}
			if n := r.cache.Len(); n != 0 {
				t.Errorf("%d sessions are kept of connections that were refused", n)
			}
			// A session without verification does not serve a connection with
			// verification.
			r.connect(wishes{ca: other, insecure: true})
			if info, err := r.try(wishes{ca: other}); !errors.As(err,
				new(*openssl.VerifyError)) {
				t.Errorf("a connection with verification, after one without: %+v, "+
					"%v; want a VerifyError", info, err)
			}
		})
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	r := newResumer(t, tls.VersionTLS13)
	var tickets []func() // each function makes one client read the tickets of its server
	for range 2 * openssl.MostOfOneKey {
		ours, peers := tcpPair(t)
		c, err := clientContext(t, load(t), r.id.ca.PEM()).NewClient(ours, "localhost")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Configure(openssl.ClientSettings{Sessions: r.cache}); err != nil {
			t.Fatal(err)
		}
		peer := tls.Server(peers, r.peer)
		defer peer.Close()
		sent := make(chan error, 1)
		go func() {
			_, err := peer.Write([]byte{1})
			sent <- err
		}()
		if err := c.Handshake(bounded(t)); err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, func() {
			if _, err := c.Read(bounded(t), make([]byte, 1)); err != nil ||
				<-sent != nil {
				t.Fatal("the byte after the tickets was not sent, or not read: ",
					err)
			}
		})
	}
	for _, read := range tickets {
		read()
	}
	if n := r.cache.Len(); n != openssl.MostOfOneKey {
		t.Errorf("the cache has %d sessions of one key, want %d, which is the most", n,
			openssl.MostOfOneKey)
	}
	for n := range openssl.MostSessions + 5 {
		r.connect(wishes{settings: openssl.ClientSettings{Place: fmt.Sprint(n)}})
	}
	if n := r.cache.Len(); n != openssl.MostSessions {
		t.Errorf("the cache has %d sessions, want %d, which is the most", n,
			openssl.MostSessions)
	}
	last := wishes{settings: openssl.ClientSettings{Place: fmt.Sprint(openssl.MostSessions +
		4)}}
	r.cache.Age(openssl.OldestSession + time.Second)
	if r.connect(last).Resumed {
		t.Error("a session that is too old was resumed")
	}
	if !r.connect(last).Resumed {
		t.Error("the session of the previous connection was not resumed")
	}
	r.cache.Free()
	if r.connect(last).Resumed || r.cache.Len() != 0 {
		t.Error("a cache that is freed has sessions")
	}
}

// However often a session is resumed, the server is verified again an hour after the previous
// verification.
func TestAChainOfResumptionsEnds(t *testing.T) {
	t.Parallel()
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newResumer(t, version)
			r.connect(wishes{})
			for n, want := range []bool{true, false, true} {
				r.cache.Age(openssl.OldestSession * 2 / 3)
				if n == 2 { // no time passes before this connection
					r.cache.Age(-openssl.OldestSession * 2 / 3)
				}
				if got := r.connect(wishes{}).Resumed; got != want {
					t.Errorf("connection %d: resumed %v, want %v",
						n+1, got, want)
				}
			}
		})
	}
}
