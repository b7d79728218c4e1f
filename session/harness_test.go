package session_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// A rig is a session for a test. Its engine uses crypto/tls in place of OpenSSL. The session trusts
// the authority ca, which has issued cert for localhost.
type rig struct {
	*session.Session
	t    *testing.T
	eng  *fakeengine.Engine
	ca   *testcert.CA
	cert *testcert.Cert

	end sync.Once
}

// newRig makes a rig. The functions in set adjust its engine and its configuration.
func newRig(t *testing.T, set ...func(*fakeengine.Engine, *session.Config)) *rig {
	t.Helper()
	r := &rig{t: t, eng: fakeengine.New(t)}
	r.ca = testcert.NewCA(t, "Test CA")
	r.cert = r.ca.Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
		IPs: []string{"127.0.0.1"}})
	r.eng.System = r.ca.Pool()
	cfg := session.Config{Engine: r.eng}
	for _, f := range set {
		f(r.eng, &cfg)
	}
	cfg.Timeouts = fakeengine.Patient(cfg.Timeouts)
	r.Session = session.New(cfg)
	t.Cleanup(r.End)
	return r
}

// Handshake and Accept call the session's methods without a data channel.
func (r *rig) Handshake(h session.Handle) *session.Call { return r.Session.Handshake(h, nil) }

func (r *rig) Accept(ctx session.Handle, host string, port int) *session.Call {
	return r.Session.Accept(ctx, host, port, nil)
}

// End ends the session. A second End does nothing.
func (r *rig) End() {
	r.end.Do(func() {
		over := make(chan struct{})
		go func() { r.Session.End(); close(over) }()
		select {
		case <-over:
		case <-time.After(testkit.Patience):
			r.t.Errorf("End did not return in %v; is there a call that was never run?",
				testkit.Patience)
		}
	})
}

// The type running is a call that has been started.
type running struct {
	*session.Call
	t    *testing.T
	done chan struct{}
	v    any
	err  error
}

// start runs a call on a goroutine of its own.
func (r *rig) start(c *session.Call) *running {
	g := &running{Call: c, t: r.t, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		g.v, g.err = c.Run()
	}()
	return g
}

// wait returns what the call returns.
func (g *running) wait() (any, error) {
	g.t.Helper()
	await(g.t, g.done, "the end of a call")
	return g.v, g.err
}

// ok returns the result of a call that must succeed.
func (g *running) ok() any {
	g.t.Helper()
	v, err := g.wait()
	if err != nil {
		g.t.Fatalf("the call fails with %v, want a result", err)
	}
	return v
}

// The method fails returns the error of a call that must fail with the kind k.
func (g *running) fails(k kind.Kind) *session.Error {
	g.t.Helper()
	v, err := g.wait()
	var e *session.Error
	if !errors.As(err, &e) {
		g.t.Fatalf("got %v, %v; want an error of kind %s", v, err, k)
	}
	if e.Kind != k {
		g.t.Fatalf("got kind %s (%v), want %s", e.Kind, e, k)
	}
	return e
}

// ended says whether the call has ended.
func (g *running) ended() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

func (r *rig) ok(c *session.Call) any {
	r.t.Helper()
	return r.start(c).ok()
}

func (r *rig) handle(c *session.Call) session.Handle {
	r.t.Helper()
	return r.ok(c).(session.Handle)
}

func (r *rig) fails(c *session.Call, k kind.Kind) *session.Error {
	r.t.Helper()
	return r.start(c).fails(k)
}

// failsWith does the same as fails, and also checks that the error's reason contains the text.
func (r *rig) failsWith(c *session.Call, k kind.Kind, text string) {
	r.t.Helper()
	if e := r.fails(c, k); !strings.Contains(e.Why, text) {
		r.t.Errorf("the error is %q, want one that says %q", e, text)
	}
}

// lastError returns the text of tls.LastError.
func (r *rig) lastError() string {
	r.t.Helper()
	return r.ok(r.LastError()).(string)
}

// client returns a connection that has done its handshake.
func (r *rig) client(port int) session.Handle {
	r.t.Helper()
	h := r.handle(r.NewClient("localhost", port))
	r.ok(r.Handshake(h))
	return h
}

// server returns a context with the rig's certificate.
func (r *rig) server() session.Handle {
	r.t.Helper()
	return r.handle(r.NewServerContext(r.cert.CertFile, r.cert.KeyFile))
}

// tlsServer returns the server's side of a connection, with the rig's certificate.
func (r *rig) tlsServer(nc net.Conn) *tls.Conn { return tls.Server(nc, r.serverConfig()) }

func (r *rig) serverConfig() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{r.cert.TLS()}}
}

// clientConfig returns the configuration of a client that trusts the rig's authority.
func (r *rig) clientConfig() *tls.Config {
	return &tls.Config{RootCAs: r.ca.Pool(), ServerName: "localhost"}
}

func (r *rig) echo() int { return testkit.Echo(r.t, r.cert.TLS()) }

// dial makes a TLS connection to a listener of the session, from outside. It waits until the
// listener exists.
func (r *rig) dial(port int) *tls.Conn {
	r.t.Helper()
	c := tls.Client(dialTCP(r.t, port), r.clientConfig())
	c.SetDeadline(time.Now().Add(testkit.Patience))
	if err := c.Handshake(); err != nil {
		r.t.Fatalf("the handshake of the peer fails with %v, want success", err)
	}
	return c
}

func dialTCP(t *testing.T, port int) net.Conn {
	t.Helper()
	var nc net.Conn
	testkit.Until(t, "the port takes a connection", func() bool {
		var err error
		nc, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil
	})
	t.Cleanup(func() { nc.Close() })
	return nc
}

// unlistened waits until no process listens on a port. The wait may take a moment: a process that
// another test has just forked has a copy of the socket until it executes its program.
func unlistened(t *testing.T, port int) {
	t.Helper()
	testkit.Until(t, "no process listens on the port", func() bool {
		nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
}

// greet returns a function for testkit.Serve. It is a TLS server: it sends "x", and waits until the
// client has closed the connection.
func greet(r *rig) func(net.Conn) {
	return func(nc net.Conn) {
		c := r.tlsServer(nc)
		defer c.Close()
		c.Write([]byte("x"))
		io.Copy(io.Discard, c)
	}
}

// await waits until a channel is closed.
func await(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(testkit.Patience):
		t.Fatalf("waited %v for %s", testkit.Patience, what)
	}
}

func limits(l session.Limits) func(*fakeengine.Engine, *session.Config) {
	return func(_ *fakeengine.Engine, c *session.Config) { c.Limits = l }
}

func timeouts(l session.Timeouts) func(*fakeengine.Engine, *session.Config) {
	return func(_ *fakeengine.Engine, c *session.Config) { c.Timeouts = l }
}

// deaf does a server's handshake, and then reads nothing.
func deaf(r *rig, nc net.Conn) {
	r.tlsServer(nc).Handshake()
}

// deafClient does a client's handshake, and then reads nothing.
func deafClient(r *rig, nc net.Conn) {
	nc.SetDeadline(time.Now().Add(testkit.Patience))
	tls.Client(nc, r.clientConfig()).Handshake()
}
