package session_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/openssl"
	"tlsd/session"
)

// netErr makes an error of the system, in the form of package net.
func netErr(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, errno)}
}

// TestEngineErrorsAreClassified: an engine returns errors of many types. The session's error has
// the kind, the errno and the details that belong to the type.
func TestEngineErrorsAreClassified(t *testing.T) {
	t.Parallel()
	verify := &openssl.VerifyError{Code: 20, Reason: "unable to get local issuer certificate",
		Depth: 1, Subject: "/CN=x", Store: "system"}
	queue := []string{"error:0A000438:SSL routines::tlsv1 alert internal error"}
	tests := []struct {
		name  string
		op    fakeengine.Op
		err   error
		want  kind.Kind
		errno string
		queue bool
		says  string
	}{
		{"not verified", fakeengine.Handshake, verify,
			kind.Verify, "", false, "issuer"},
		{"alert", fakeengine.Handshake,
			&openssl.HandshakeError{Queue: queue, Reason: "the peer sent an alert"},
			kind.Handshake, "", true, "alert"},
		{"reset in the handshake", fakeengine.Handshake, netErr("read", syscall.ECONNRESET),
			kind.Handshake, "ECONNRESET", false, "connection reset by peer"},
		{"bare errno in the handshake", fakeengine.Handshake, syscall.ECONNRESET,
			kind.Handshake, "ECONNRESET", false, "connection reset by peer"},
		{"end in the handshake", fakeengine.Handshake, io.ErrUnexpectedEOF,
			kind.Handshake, "", false, "EOF"},
		{"anything in the handshake", fakeengine.Handshake, errors.New("strange"),
			kind.Handshake, "", false, "strange"},
		{"closed in the handshake", fakeengine.Handshake, net.ErrClosed,
			kind.Cancelled, "", false, "closed"},

		{"cut", fakeengine.Read, openssl.ErrTruncated,
			kind.IO, "", false, ""},
		{"broken record", fakeengine.Read,
			&openssl.ProtocolError{Reason: "bad record mac", Queue: queue},
			kind.IO, "", true, "bad record mac"},
		{"reset", fakeengine.Read, netErr("read", syscall.ECONNRESET),
			kind.IO, "ECONNRESET", false, "connection reset by peer"},
		{"no route", fakeengine.Read, netErr("read", syscall.EHOSTUNREACH),
			kind.IO, "EHOSTUNREACH", false, "no route to host"},
		{"the kernel gave up", fakeengine.Read, netErr("read", syscall.ETIMEDOUT),
			kind.Timeout, "ETIMEDOUT", false, "timed out"},
		{"closed", fakeengine.Read, net.ErrClosed,
			kind.Cancelled, "", false, "closed"},

		{"broken pipe", fakeengine.Write, netErr("write", syscall.EPIPE),
			kind.IO, "EPIPE", false, "broken pipe"},
		{"broken stream", fakeengine.Write, openssl.ErrWriteBroken,
			kind.State, "", false, ""},
		{"end", fakeengine.Write, io.EOF,
			kind.IO, "", false, "EOF"},

		{"no memory", fakeengine.Client, errors.New("SSL_new failed"),
			kind.Internal, "", false, "SSL_new failed"},
		{"no store", fakeengine.NewClientContext, errors.New("no room"),
			kind.Internal, "", false, "no room"},
	}
	for _, c := range tests {
		for _, wrapped := range []bool{false, true} {
			name := c.name
			if wrapped {
				name += ", wrapped"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				err := c.err
				if wrapped {
					err = fmt.Errorf("while driving: %w", err)
				}
				r := newRig(t, failing(c.op, err))
				calls := []*session.Call{
					r.NewClient("localhost", r.echo()),
					r.Handshake(1),
					r.Write(1, []byte("x")),
					r.Read(1, 1),
				}
				order := []fakeengine.Op{fakeengine.NewClientContext,
					fakeengine.Handshake, fakeengine.Write, fakeengine.Read}
				at := slices.Index(order, c.op)
				if c.op == fakeengine.Client { // Handshake calls Client
					at = 1
				}
				var e *session.Error
				for i, call := range calls {
					g := r.start(call)
					switch {
					case i < at:
						g.ok()
					case i == at:
						e = g.fails(c.want)
					default:
						g.Cancel()
						g.wait()
					}
				}
				if e.Errno != c.errno {
					t.Errorf("the errno is %q, want %q", e.Errno, c.errno)
				}
				if (len(e.OpenSSL) > 0) != c.queue {
					t.Errorf("the error has OpenSSL's queue %q; want a "+
						"queue: %v", e.OpenSSL, c.queue)
				}
				if (e.Verify != nil) != (c.want == kind.Verify) {
					t.Errorf("the error's member Verify is %v; only an "+
						"error of kind verify must have it", e.Verify)
				}
				if e.Why == "" || !strings.Contains(e.Why, c.says) {
					t.Errorf("the reason is %q, want one that says %q", e.Why,
						c.says)
				}
			})
		}
	}
}

func TestVerifyErrorsInRealHandshakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		leaf testcert.Leaf
		code int
	}{
		"other name": {testcert.Leaf{CN: "other", DNS: []string{"other.example"}}, 62},
		"expired": {testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
			Expired: true}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			h := r.handle(r.NewClient("localhost", testkit.Echo(t, r.ca.Issue(t,
				c.leaf).TLS())))
			e := r.fails(r.Handshake(h), kind.Verify)
			if e.Verify == nil || e.Verify.Code != c.code ||
				e.Verify.Subject != "/CN="+c.leaf.CN {
				t.Errorf("the error's member Verify is %+v, want code %d and "+
					"the subject of the server", e.Verify, c.code)
			}
			if e.Handle != h || e.Op != "tls.Handshake" {
				t.Errorf("the error names %s, handle %d; want tls.Handshake, "+
					"handle %d", e.Op, e.Handle, h)
			}
		})
	}
}

func TestConnectErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port := testkit.Port(t)
	e := r.fails(r.NewClient("127.0.0.1", port), kind.Connect)
	want := fmt.Sprintf("tls.NewClient: connect to 127.0.0.1:%d: connection refused", port)
	if e.Error() != want || e.Errno != "ECONNREFUSED" {
		t.Errorf("got %q, errno %q; want %q", e, e.Errno, want)
	}
	for _, host := range []string{"[::1]", "no spaces", "a..b", "256.256.256.256.",
		"http://localhost"} {
		c := r.start(r.NewClient(host, 1))
		if host != "[::1]" {
			// some hosts are looked up, and TestMain's resolver never answers
			c.Cancel()
		}
		if _, err := c.wait(); err == nil {
			t.Errorf("NewClient has connected to %q, want an error", host)
		}
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	short := timeouts(session.Timeouts{Connect: 50 * time.Millisecond})
	t.Run("connect", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, short)
		r.failsWith(r.NewClient("127.0.0.1", testkit.Unanswered(t)), kind.Timeout,
			"no connection within 50ms")
	})
	t.Run("look-up", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, short)
		name := slowName()
		e := r.fails(r.NewClient(name, 443), kind.Timeout)
		if !strings.Contains(e.Why, name) {
			t.Errorf("the error is %q, want one that names the host %s", e, name)
		}
	})
	t.Run("Handshake", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, timeouts(session.Timeouts{Handshake: 60 * time.Millisecond}))
		h := r.handle(r.NewClient("localhost", testkit.Silent(t)))
		r.failsWith(r.Handshake(h), kind.Timeout, "no handshake within 60ms")
		r.fails(r.Handshake(h), kind.State)
		r.ok(r.Close(h))
	})
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := session.Config{}.WithDefaults()
	timeouts := session.Timeouts{Connect: 30 * time.Second, Handshake: 30 * time.Second,
		AcceptHandshake: 10 * time.Second, Write: 30 * time.Second, Close: time.Second}
	if c.Timeouts != timeouts {
		t.Errorf("the default timeouts are %+v, want %+v", c.Timeouts, timeouts)
	}
	if c.Limits != (session.Limits{Handles: 65536, Calls: 4096, Pending: 128}) {
		t.Errorf("the default limits are %+v, want 65536 handles, 4096 calls, 128 "+
			"pending", c.Limits)
	}
	c = session.Config{
		Timeouts: session.Timeouts{Connect: 1, Handshake: 2, AcceptHandshake: 3, Accept: 4,
			Read: 5, Write: 6, Close: 7},
		Limits: session.Limits{Handles: 4, Calls: 5, Pending: 6},
	}
	if got := c.WithDefaults(); !reflect.DeepEqual(got, c) {
		t.Errorf("WithDefaults has changed values that were given: %+v", got)
	}
}

// TestStub: without a TLS library, each call that needs the library fails. Its error says why no
// library was loaded.
func TestStub(t *testing.T) {
	t.Parallel()
	stub := session.Stub(errors.New("tried libssl.so.3: not found"))
	s := session.New(session.Config{Engine: stub})
	defer s.End()
	cert := testcert.SelfSigned(t, testcert.Leaf{CN: "x"})
	for op, c := range map[string]*session.Call{
		"tls.NewClient":        s.NewClient("localhost", 1),
		"tls.NewServerContext": s.NewServerContext(cert.CertFile, cert.KeyFile),
		"tls.SetCaBundle":      s.SetCaBundle(cert.CertFile),
	} {
		_, err := c.Run()
		e, _ := err.(*session.Error)
		if e == nil || e.Kind != kind.Backend || e.Op != op ||
			!strings.Contains(e.Why, "tried libssl.so.3: not found") {
			t.Errorf("%s: got the error %v, want kind backend and why no library "+
				"was loaded", op, err)
		}
	}
	for want, c := range map[string]*session.Call{"stub": s.Backend(), "": s.LibraryVersion()} {
		if got, err := c.Run(); err != nil || got != want {
			t.Errorf("got %v, %v; want %q", got, err, want)
		}
	}
	if _, err := s.NewClient("localhost", 1).Run(); err == nil {
		t.Error("NewClient works without a library")
	}
}

func TestLibraryNeedsNoConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for want, c := range map[string]*session.Call{
		"openssl":             r.Backend(),
		"crypto/tls stand-in": r.LibraryVersion(),
	} {
		if c.Waits() {
			t.Errorf("the call that returns %s waits, but needs no connection", want)
		}
		if got := r.ok(c); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  session.Error
		want string
	}{
		{session.Error{Why: "why"}, "why"},
		{session.Error{Op: "tls.Read", Why: "why"}, "tls.Read: why"},
		{session.Error{Op: "tls.Read", Handle: 7, Why: "why"}, "tls.Read: handle 7: why"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
