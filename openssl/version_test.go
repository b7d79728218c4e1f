package openssl_test

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"tlsd/openssl"
)

// A context that requires TLS 1.3, of a client or of a server, refuses older versions and says so.
// A context without this requirement accepts TLS 1.2, even if the two contexts share an SSL_CTX.
func TestTLS13CanBeRequired(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	bundle, err := l.ParseCABundle("test-ca.pem", id.ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bundle.Free) // after the parallel subtests
	for name, tc := range map[string]struct {
		server   bool
		required bool
		max      uint16
		reason   string // "": the handshake must succeed
	}{
		"client, 1.3":         {false, true, tls.VersionTLS13, ""},
		"client, 1.2":         {false, true, tls.VersionTLS12, "protocol_version"},
		"client, 1.1":         {false, true, tls.VersionTLS11, "protocol_version"},
		"client without, 1.2": {false, false, tls.VersionTLS12, ""},
		"client without, 1.1": {false, false, tls.VersionTLS11, "protocol_version"},
		"server, 1.3":         {true, true, tls.VersionTLS13, ""},
		"server, 1.2": {true, true, tls.VersionTLS12,
			"the peer does not speak TLS 1.3"},
		"server without, 1.2": {true, false, tls.VersionTLS12, ""},
		"server without, 1.1": {true, false, tls.VersionTLS11, "the peer does not speak " +
			"TLS 1.2 or newer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ctx *openssl.Context
			var err error
			if tc.server {
				ctx, err = l.NewServerContext(id.cert.CertPEM, id.cert.KeyPEM)
			} else {
				ctx, err = l.NewClientContext(bundle)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer ctx.Free()
			if tc.required {
				ctx.RequireTLS13()
			}
			ours, peers := tcpPair(t)
			var c *openssl.Conn
			var peer *tls.Conn
			if tc.server {
				c, err = ctx.NewServer(ours)
				peer = tls.Client(peers, &tls.Config{RootCAs: id.ca.Pool(),
					ServerName: "localhost", MinVersion: tls.VersionTLS10,
					MaxVersion: tc.max})
			} else {
				c, err = ctx.NewClient(ours, "localhost")
				peer = tls.Server(peers,
					&tls.Config{Certificates: []tls.Certificate{id.cert.TLS()},
						MinVersion: tls.VersionTLS10, MaxVersion: tc.max})
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = peer.Handshake()
			}()
			err = c.Handshake(bounded(t))
			<-done
			var h *openssl.HandshakeError
			switch {
			case tc.reason == "" && err != nil:
				t.Fatal(err)
			case tc.reason == "":
			case !errors.As(err, &h):
				t.Fatalf("error %v, want a HandshakeError", err)
			case !h.Version || !strings.Contains(h.Reason, tc.reason):
				t.Errorf("the error is about the version: %v, reason %q; want "+
					"true, %q", h.Version, h.Reason, tc.reason)
			}
		})
	}
}
