package openssl_test

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"tlsd/openssl"
)

// For a client of TLS 1.2 a server chooses the suite by its own order. Each suite that the server
// accepts has authenticated encryption and ephemeral keys.
func TestAServerChoosesTheSuite(t *testing.T) {
	t.Parallel()
	const (
		gcm128 = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
		gcm256 = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
		cbc    = tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
	)
	l, id := load(t), newIdentity(t)
	for name, c := range map[string]struct {
		offers []uint16
		want   uint16 // 0: none
	}{
		"the stronger of two":      {[]uint16{gcm128, gcm256}, gcm256},
		"the only one":             {[]uint16{gcm128}, gcm128},
		"not CBC, if there is GCM": {[]uint16{cbc, gcm128}, gcm128},
		"not CBC":                  {[]uint16{cbc}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, err := l.NewServerContext(id.cert.CertPEM, id.cert.KeyPEM)
			if err != nil {
				t.Fatal(err)
			}
			defer ctx.Free()
			ours, peers := tcpPair(t)
			s, err := ctx.NewServer(ours)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			client := tls.Client(peers,
				&tls.Config{RootCAs: id.ca.Pool(), ServerName: "localhost",
					MaxVersion: tls.VersionTLS12, CipherSuites: c.offers})
			shaken := make(chan error, 1)
			go func() { shaken <- client.HandshakeContext(bounded(t)) }()
			err = s.Handshake(bounded(t))
			if cerr := <-shaken; (cerr == nil) != (c.want != 0) {
				t.Errorf("the client's handshake: %v; want success: %t", cerr,
					c.want != 0)
			}
			var refused *openssl.HandshakeError
			switch {
			case c.want == 0:
				if !errors.As(err, &refused) ||
					!strings.Contains(err.Error(),
						"no cipher suite in common") {
					t.Errorf("the server's handshake: %v; want a "+
						"HandshakeError with \"no cipher suite in common\"",
						err)
				}
			case err != nil:
				t.Error(err)
			case client.ConnectionState().CipherSuite != c.want:
				t.Errorf("the server has chosen %s, want %s", tls.CipherSuiteName(
					client.ConnectionState().CipherSuite),
					tls.CipherSuiteName(c.want))
			}
		})
	}
}
