package session_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// notes is an Observer that records the events.
type notes struct {
	mu           sync.Mutex
	shaken       []shaken
	certificates []session.Certificate
	reloads      []error
	over         *session.Totals
}

// shaken is a handshake with its details.
type shaken struct {
	session.Handshake
	version, cipher, subject, serial string
	resumed                          bool
}

func (n *notes) HandshakeDone(h session.Handshake) {
	s := shaken{Handshake: h}
	s.version, s.cipher, s.subject, s.serial, s.resumed = h.Details()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shaken = append(n.shaken, s)
}

func (n *notes) Loaded(c session.Certificate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.certificates = append(n.certificates, c)
}

func (n *notes) Reloaded(_, _ string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reloads = append(n.reloads, err)
}

func (n *notes) Over(t session.Totals) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = &t
}

func (n *notes) handshakes() []shaken {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.shaken)
}

// observe sets the notes as the session's Observer.
func (n *notes) observe(_ *fakeengine.Engine, c *session.Config) { c.Observer = n }

func TestTheObserverIsToldOfHandshakesAndOfTheEnd(t *testing.T) {
	t.Parallel()
	n := new(notes)
	r := newRealRig(t, n.observe)
	port := r.serveTLS(&tls.Config{}, func(c *tls.Conn, _ *net.TCPConn) {
		io.Copy(c, c)
		c.Close()
	})
	h := r.client(port)
	r.ok(r.Write(h, []byte("hello")))
	for got := 0; got < 5; {
		got += len(r.ok(r.Read(h, 5)).([]byte))
	}
	cipher := r.fact(h, "cipher")
	r.ok(r.Close(h))
	bad := r.handle(r.NewClient("localhost", port))
	r.ok(r.SetOption(bad, "server-name", "example.com"))
	r.fails(r.Handshake(bad), kind.Verify)
	r.End()

	list := n.handshakes()
	if len(list) != 2 {
		t.Fatalf("the observer was told of %d handshakes, want 2: %+v", len(list), list)
	}
	good, failed := list[0], list[1]
	if good.Server || good.Failure != nil || good.Peer == "" || good.Took <= 0 ||
		good.version != "TLSv1.3" || good.cipher != cipher ||
		good.subject != "/CN=localhost" ||
		good.serial != r.cert.Cert.SerialNumber.Text(16) || good.resumed {
		t.Errorf("the observer was told %+v, want a client's handshake with TLS 1.3 and "+
			"the details of the server's certificate", good)
	}
	if failed.Failure == nil || failed.Failure.Kind != kind.Verify || failed.Skipped ||
		failed.version != "" {
		t.Errorf("the observer was told %+v, want a failure of kind verify", failed)
	}
	if want := (session.Totals{Handles: 2, Received: 5, Sent: 5}); n.over == nil ||
		*n.over != want {
		t.Errorf("the totals are %+v, want %+v", n.over, want)
	}
}

func TestAFailureThatIsSkippedIsToldToTheObserver(t *testing.T) {
	t.Parallel()
	n := new(notes)
	r := newRealRig(t, n.observe, func(_ *fakeengine.Engine, c *session.Config) {
		c.SkipFailedHandshakes = true
	})
	ctx, port := r.listener()
	if got := r.fact(ctx, "failed-handshakes"); got != "skip" {
		t.Errorf("failed-handshakes of a new context is %q, want skip", got)
	}
	accepted := r.start(r.Accept(ctx, "", 0))
	nc := dialTCP(t, port)
	if _, err := nc.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "the observer is told of a handshake", func() bool {
		return len(n.handshakes()) > 0
	})
	r.dial(port)
	accepted.ok()
	list := n.handshakes()
	if len(list) != 2 || list[0].Failure == nil || !list[0].Skipped || !list[0].Server ||
		list[0].Peer != nc.LocalAddr().String() ||
		list[1].Failure != nil || list[1].Skipped || !list[1].Server {
		t.Errorf("the observer was told %+v, want a skipped failure and a success, both "+
			"of a server", list)
	}

	// The option overrides the configuration for one context.
	r.ok(r.SetOption(ctx, "failed-handshakes", "raise"))
	accepted = r.start(r.Accept(ctx, "", 0))
	if _, err := dialTCP(t, port).Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	accepted.fails(kind.Handshake)
	if last := n.handshakes()[2]; last.Failure == nil || last.Skipped {
		t.Errorf("the observer was told %+v, want a failure that was not skipped", last)
	}
}

func TestTheObserverIsToldOfCertificates(t *testing.T) {
	t.Parallel()
	n := new(notes)
	r := newRealRig(t, n.observe)
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	other := r.ca.Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
		NotBefore: end.Add(-2 * time.Hour), NotAfter: end})
	cert, key := files(t, other)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx := r.server()
	r.ok(r.SetCertificate(ctx, "", cert, key))
	r.fails(r.SetCertificate(ctx, "", cert, r.cert.KeyFile), kind.File)
	h := r.handle(r.NewClient("localhost", r.echo()))
	r.ok(r.SetCertificate(h, "", cert, key))
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.certificates) != 3 {
		t.Fatalf("the observer was told of %d certificates, want 3: %+v",
			len(n.certificates), n.certificates)
	}
	if c := n.certificates[0]; c.KeyOpen || c.CertFile != r.cert.CertFile ||
		!c.NotAfter.Equal(r.cert.Cert.NotAfter) {
		t.Errorf("the first certificate is %+v, want the rig's, whose key is not open "+
			"to others", c)
	}
	for _, c := range n.certificates[1:] {
		if !c.KeyOpen || c.CertFile != cert || c.KeyFile != key ||
			!c.NotAfter.Equal(end) || c.Serial.Cmp(other.Cert.SerialNumber) != 0 {
			t.Errorf("a later certificate is %+v, want the other one, whose key is "+
				"open to others", c)
		}
	}
}
