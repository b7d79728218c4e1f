package trust

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(enterEnv); spec != "" {
		enter(spec, os.Args[1:])
	}
	testd.Main(m)
}

// A world has two authorities, ca and other, and a server with a certificate of each. A test
// usually trusts ca alone.
type world struct {
	ca, other   *testcert.CA
	server      *testcert.Cert // issued by ca
	good, wrong int            // ports of servers with a certificate of ca, and of other
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ca: testcert.NewCA(t, "Test CA"), other: testcert.NewCA(t, "Other CA")}
	leaf := testcert.Leaf{CN: "localhost", DNS: []string{"localhost"}}
	w.server = w.ca.Issue(t, leaf)
	w.good, w.wrong = serve(t, w.server), serve(t, w.other.Issue(t, leaf))
	return w
}

// serve starts a TLS server that runs until the test ends.
func serve(t *testing.T, cert *testcert.Cert) (port int) {
	t.Helper()
	return testkit.ServeTLS(t, cert.Config(), func(c *tls.Conn) { io.Copy(io.Discard, c) })
}

// open makes a client's connection, before its handshake.
func open(t *testing.T, s *client.Client, port int) client.Handle {
	t.Helper()
	h, err := s.NewClient(testkit.Bounded(t), "localhost", port)
	testkit.Must(t, err)
	return h
}

// shake does a handshake with a new connection.
func shake(t *testing.T, s *client.Client, port int) error {
	t.Helper()
	h := open(t, s, port)
	err := s.Handshake(testkit.Bounded(t), h)
	testkit.Must(t, s.CloseConn(testkit.Bounded(t), h))
	return err
}

// accepts checks that a handshake with the server at port succeeds.
func accepts(t *testing.T, s *client.Client, port int) {
	t.Helper()
	if err := shake(t, s, port); err != nil {
		t.Errorf("the handshake fails: %v; want success", err)
	}
}

// refuses checks that a handshake fails because of the server's certificate. The name of the trust
// store in the error must have each string in store.
func refuses(t *testing.T, s *client.Client, port int, store ...string) {
	t.Helper()
	refused(t, shake(t, s, port), store...)
}

// refused checks the error of a handshake that was done before, as refuses does.
func refused(t *testing.T, err error, store ...string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != client.KindVerify || e.Data.Verify == nil {
		t.Errorf("the handshake returns %v; want an error of kind verify", err)
		return
	}
	for _, text := range store {
		if !strings.Contains(e.Data.Verify.Store, text) ||
			!strings.Contains(e.Message, text) {
			t.Errorf("the handshake returns %v; want the store %q in it", err, text)
		}
	}
}
