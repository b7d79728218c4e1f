package session_test

import (
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/kind"
	"tlsd/session"
)

func TestPlainTextBeforeTheHandshake(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("handshake", "later")
	accepted := r.start(r.Accept(ctx, "", 0))
	h := r.handle(r.NewClient("127.0.0.1", port))
	a := accepted.ok().(session.Handle)
	say := func(from, to session.Handle, text string) {
		t.Helper()
		r.ok(r.WritePlain(from, []byte(text)))
		for got := ""; got != text; {
			got += string(r.ok(r.ReadPlain(to, 100)).([]byte))
			if !strings.HasPrefix(text, got) {
				t.Fatalf("read %q, want %q", got, text)
			}
		}
	}
	say(a, h, "220 ready\r\n")
	say(h, a, "STARTTLS\r\n")
	say(a, h, "220 go ahead\r\n")
	r.fails(r.Read(h, 1), kind.State)
	server := r.start(r.Handshake(a))
	r.ok(r.Handshake(h))
	server.ok()
	r.ok(r.Write(h, []byte("x")))
	if got := string(r.ok(r.Read(a, 10)).([]byte)); got != "x" {
		t.Errorf("after the handshake a Read returns %q, want \"x\"", got)
	}
	r.fails(r.ReadPlain(h, 1), kind.State)
	r.fails(r.WritePlain(a, []byte("x")), kind.State)

	// The caller has not read all plain text of the peer. So the handshake must fail: otherwise
	// the caller could take this text for protected text.
	accepted = r.start(r.Accept(ctx, "", 0))
	h = r.handle(r.NewClient("127.0.0.1", port))
	a = accepted.ok().(session.Handle)
	r.ok(r.WritePlain(a, []byte("220 go ahead\r\n250 injected\r\n")))
	for got := ""; got != "220 go ahead\r\n"; {
		got += string(r.ok(r.ReadPlain(h, 1)).([]byte))
	}
	r.failsWith(r.Handshake(h), kind.State, "plain text")
}

// With the option handshake=later, an Accept gives a connection before its handshake. If the
// context is then closed, the handshake fails with kind handle, and the session closes the TCP
// connection.
func TestClosingTheContextClosesAConnectionBeforeItsHandshake(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("handshake", "later")
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a := r.ok(r.Accept(ctx, "", 0)).(session.Handle)
	r.ok(r.CloseServerContext(ctx))
	r.failsWith(r.Handshake(a), kind.Handle, "closed")
	if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the client's Read fails with %v, want the end or a reset", err)
	}
}
