package session_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/session"
)

// Options of clients and of contexts, over the real OpenSSL.

func TestAnUnknownOptionOrValueIsToldWithTheKnownOnes(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx := r.server()
	h := r.handle(r.NewClient("localhost", r.echo()))
	for _, c := range []struct {
		h           session.Handle
		name, value string
		says        string
	}{
		{h, "ALPN", "h2",
			"alpn, server-name, ca, pins, min-version, eof, session-resumption"},
		{h, "client-cert", "require", "alpn, server-name"},
		{ctx, "pins", "",
			"alpn, min-version, client-ca, client-cert, session-resumption, " +
				"failed-handshakes, handshake, reload"},
		{h, "alpn", "h2,,http/1.1", "names with commas"},
		{h, "alpn", strings.Repeat("x", 256), "names with commas"},
		{h, "server-name", "a b", "is not a host"},
		{h, "pins", "sha256:00", "64 hexadecimal digits"},
		{h, "pins", "sha1:" + strings.Repeat("0", 64), "64 hexadecimal digits"},
		{h, "min-version", "1.1", "1.2 or 1.3"},
		{h, "eof", "", "strict or lax"},
		{h, "session-resumption", "0", "on or off"},
		{ctx, "client-cert", "maybe", "none, request or require"},
		{ctx, "failed-handshakes", "log", "raise or skip"},
		{ctx, "handshake", "now", "accept or later"},
		{ctx, "reload", "on", "off or auto"},
		{ctx, "session-resumption", "1", "on or off"},
	} {
		r.failsWith(r.SetOption(c.h, c.name, c.value), kind.Params, c.says)
	}
	r.failsWith(r.SetOption(ctx, "client-cert", "require"), kind.State, "client-ca")
	r.fails(r.SetOption(h, "ca", "/nonexistent"), kind.File)
	r.fails(r.SetOption(ctx, "client-ca", "relative"), kind.File)
	rubbish := filepath.Join(t.TempDir(), "rubbish.pem")
	if err := os.WriteFile(rubbish, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for h, name := range map[session.Handle]string{h: "ca", ctx: "client-ca"} {
		r.failsWith(r.SetOption(h, name, rubbish), kind.File, rubbish)
	}
	r.ok(r.Handshake(h))
	for _, name := range []string{"alpn", "server-name", "ca", "pins", "min-version", "eof",
		"session-resumption"} {
		r.fails(r.SetOption(h, name, ""), kind.State)
	}
	r.fails(r.SetOption(99, "alpn", "h2"), kind.Handle)
	r.failsWith(r.HandleInfo(h, "colour"), kind.Params, "channel-binding")
}

func TestClientsAndServersOfOursAgreeOnAProtocol(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("alpn", "h2,http/1.1")
	h := r.handle(r.NewClient("127.0.0.1", port))
	r.ok(r.SetOption(h, "alpn", "http/1.1,h2"))
	accepted := r.start(r.Accept(ctx, "", 0))
	r.ok(r.Handshake(h))
	a := accepted.ok().(session.Handle)
	for _, end := range []session.Handle{h, a} {
		if got := r.fact(end, "alpn"); got != "h2" {
			t.Errorf("handle %d: alpn is %q, want h2", end, got)
		}
	}
	if all := r.ok(r.HandleInfo(h, "")).(session.Facts); all["alpn"] != "h2" || len(all) != 21 {
		t.Errorf("the client has %d facts, want 21, among them alpn h2: %v", len(all), all)
	}
	if r.fact(h, "peer-address") != r.fact(a, "local-address") ||
		r.fact(a, "peer-address") != r.fact(h, "local-address") {
		t.Error("the peer-address of one end is not the local-address of the other end")
	}

	// Without a common protocol the handshake fails on both sides.
	other := r.handle(r.NewClient("127.0.0.1", port))
	r.ok(r.SetOption(other, "alpn", "imap"))
	accepted = r.start(r.Accept(ctx, "", 0))
	r.failsWith(r.Handshake(other), kind.Handshake, "no_application_protocol")
	accepted.fails(kind.Handshake)
}

func TestOptionsOfAClientHold(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	leaf, err := x509.ParseCertificate(r.cert.TLS().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pin := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	old := r.serveTLS(&tls.Config{MaxVersion: tls.VersionTLS12},
		func(c *tls.Conn, _ *net.TCPConn) { c.Handshake() })
	cut := r.serveTLS(&tls.Config{}, func(c *tls.Conn, nc *net.TCPConn) {
		c.Write([]byte("all"))
		nc.Close()
	})
	other := testcert.NewCA(t, "Other CA").File
	for _, c := range []struct {
		name, host string
		port       int
		options    []string
		want       kind.Kind // "": the handshake succeeds
		says       string
	}{
		{"another name", "127.0.0.1", r.echo(),
			[]string{"server-name", "localhost"}, "", ""},
		{"a name that the certificate does not have", "localhost", r.echo(),
			[]string{"server-name", "example.com"}, kind.Verify, "example.com"},
		{"a CA that has not signed", "localhost", r.echo(),
			[]string{"ca", other}, kind.Verify, other},
		{"the CA again", "localhost", r.echo(),
			[]string{"ca", other, "ca", r.ca.File}, "", ""},
		{"the system's store", "localhost", r.echo(),
			[]string{"ca", ""}, kind.Verify, ""},
		{"the right pin", "localhost", r.echo(),
			[]string{"pins", fmt.Sprintf("sha256:%x", pin)}, "", ""},
		{"a wrong pin", "localhost", r.echo(),
			[]string{"pins", "sha256:" + strings.Repeat("0", 64)}, kind.Verify, "pins"},
		{"no pin after all", "localhost", r.echo(),
			[]string{"pins", "sha256:" + strings.Repeat("0", 64), "pins", ""}, "", ""},
		{"TLS 1.3 of an old server", "localhost", old,
			[]string{"min-version", "1.3"}, kind.Handshake, "protocol_version"},
		{"TLS 1.2 after all", "localhost", old,
			[]string{"min-version", "1.3", "min-version", "1.2"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := r.handle(r.NewClient(c.host, c.port))
			for i := 0; i < len(c.options); i += 2 {
				r.ok(r.SetOption(h, c.options[i], c.options[i+1]))
			}
			if c.want == "" {
				r.ok(r.Handshake(h))
			} else {
				r.failsWith(r.Handshake(h), c.want, c.says)
			}
			r.ok(r.Close(h))
		})
	}
	for value, lax := range map[string]bool{"strict": false, "lax": true} {
		h := r.handle(r.NewClient("localhost", cut))
		r.ok(r.SetOption(h, "eof", value))
		r.ok(r.Handshake(h))
		if got := string(r.ok(r.Read(h, 10)).([]byte)); got != "all" {
			t.Fatalf("the first Read returns %q, want \"all\"", got)
		}
		if lax {
			if got := r.ok(r.Read(h, 10)).([]byte); len(got) != 0 {
				t.Errorf("with eof=lax, a Read after the cut returns %q, want "+
					"an empty blob", got)
			}
		} else {
			r.fails(r.Read(h, 10), kind.IO)
		}
	}
}
