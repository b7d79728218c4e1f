package session_test

import (
	"crypto/tls"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// tallies is a Meter that counts uses of certificates, and reloads.
type tallies struct {
	mu     sync.Mutex
	uses   map[string]int // by the certificate's serial number; an entry of 0 is removed
	reload map[bool]int   // how many reloads there were; true: the new files are used
}

func (m *tallies) Moved(int, int)                  {}
func (m *tallies) Held(int, int)                   {}
func (m *tallies) HandshakeDone(session.Handshake) {}

func (m *tallies) Shows(c session.Certificate, uses int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	serial := c.Serial.Text(16)
	if m.uses[serial] += uses; m.uses[serial] == 0 {
		delete(m.uses, serial)
	}
}

func (m *tallies) Reloaded(used bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reload[used]++
}

func (m *tallies) observe(_ *fakeengine.Engine, c *session.Config) { c.Meter = m }

func newTallies() *tallies { return &tallies{uses: map[string]int{}, reload: map[bool]int{}} }

func (m *tallies) expect(t *testing.T, when string, uses map[string]int) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !maps.Equal(m.uses, uses) {
		t.Errorf("%s: the uses of certificates are %v, want %v", when, m.uses, uses)
	}
}

func TestTheMeterKnowsWhichCertificatesServersShow(t *testing.T) {
	t.Parallel()
	m := newTallies()
	r := renewing(t, "auto", m.observe)
	first := r.rig.cert.Cert.SerialNumber.Text(16)
	m.expect(t, "at first", map[string]int{first: 1})

	again := r.handle(r.NewServerContext(r.cert, r.key))
	m.expect(t, "with another context", map[string]int{first: 2})
	host := r.issue("a.test")
	cert, key := files(t, host)
	r.ok(r.SetCertificate(again, "a.test", cert, key))
	r.fails(r.SetCertificate(again, "b.test", cert, r.key), kind.File)
	r.fails(r.NewServerContext(cert, r.key), kind.File)
	h := r.handle(r.NewClient("localhost", r.echo()))
	r.ok(r.SetCertificate(h, "", cert, key)) // a client's certificate does not count
	name := host.Cert.SerialNumber.Text(16)
	m.expect(t, "with a name", map[string]int{first: 2, name: 1})

	next := r.issue("localhost")
	r.put(r.cert, next.CertPEM)
	r.shown("localhost") // the reload fails, because the key is still the old one
	r.put(r.key, next.KeyPEM)
	if m.reload[false] != 1 || m.reload[true] != 0 {
		t.Errorf("the numbers of reloads are %v, want one that failed (false)", m.reload)
	}
	r.shown("localhost")
	renewed := next.Cert.SerialNumber.Text(16)
	m.expect(t, "renewed", map[string]int{first: 1, renewed: 1, name: 1})
	if m.reload[false] != 1 || m.reload[true] != 1 {
		t.Errorf("the numbers of reloads are %v, want one that failed (false) and one "+
			"that did not (true)", m.reload)
	}

	r.ok(r.CloseServerContext(again))
	m.expect(t, "closed", map[string]int{renewed: 1})
	r.End()
	m.expect(t, "at the end", map[string]int{})
}

// The option reload also reloads the file of the option client-ca.
func TestCAsOfClientsThatAreRenewedOnDiskAreTaken(t *testing.T) {
	t.Parallel()
	m := newTallies()
	r := renewing(t, "", m.observe)
	other := testcert.NewCA(t, "another CA")
	file := filepath.Join(r.dir, "client-ca.pem")
	r.put(file, pemOf(t, r.ca))
	r.ok(r.SetOption(r.ctx, "client-ca", file))
	r.ok(r.SetOption(r.ctx, "client-cert", "require"))
	// The clients can resume TLS sessions. A client of a CA that is no longer trusted must not
	// be admitted by resuming.
	clients := map[*testcert.CA]*tls.Config{}
	for _, ca := range []*testcert.CA{r.ca, other} {
		leaf := ca.Issue(t, testcert.Leaf{CN: "a client"})
		clients[ca] = &tls.Config{RootCAs: r.ca.Pool(), ServerName: "localhost",
			Certificates:       []tls.Certificate{leaf.TLS()},
			ClientSessionCache: tls.NewLRUClientSessionCache(9)}
	}
	resumed := false
	admits := func(ca *testcert.CA) bool {
		t.Helper()
		accepted := r.start(r.Accept(r.ctx, "", 0))
		c := tls.Client(dialTCP(t, r.port), clients[ca])
		c.SetDeadline(time.Now().Add(testkit.Patience))
		_ = c.Handshake() // no error in TLS 1.3, where the server judges the client later
		if accepted.wait(); accepted.err != nil {
			return false
		}
		resumed = resumed || c.ConnectionState().DidResume
		r.ok(r.Write(accepted.ok().(session.Handle), []byte("x")))
		// This Read also reads the tickets, which a client needs to resume a TLS session.
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return true
	}
	check := func(when string, first, second bool) {
		t.Helper()
		if a, b := admits(r.ca), admits(other); a != first || b != second {
			t.Errorf("%s: clients of the two CAs are admitted: %v, %v; want %v, %v",
				when, a, b, first, second)
		}
	}
	check("at first", true, false)
	r.put(file, pemOf(t, other))
	check("without the option reload", true, false)
	r.ok(r.SetOption(r.ctx, "reload", "auto"))
	check("renewed", false, true)
	for n, bad := range []string{"no certificate\n", ""} {
		r.put(file, []byte(bad))
		check("a bad file", false, true)
		if list := r.failures(); len(list) != n+1 {
			t.Errorf("the observer was told %q, want one more error for each bad "+
				"file", list)
		}
	}
	os.Remove(file)
	check("no file", false, true)
	r.put(file, append(pemOf(t, r.ca), pemOf(t, other)...))
	check("both", true, true)
	if m.reload[true] != 2 || m.reload[false] != 3 {
		t.Errorf("the numbers of reloads are %v, want 3 that failed (false) and 2 that "+
			"did not (true)", m.reload)
	}
	if !resumed {
		t.Error("no client has resumed a TLS session, so this test does not show that a " +
			"client of an old CA cannot resume one")
	}
}

func pemOf(t *testing.T, ca *testcert.CA) []byte {
	t.Helper()
	text, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
