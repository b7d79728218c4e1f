package peers

import (
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Our server knows foreign clients by their certificates. It refuses clients without a good one.

// clientCerts are certificates of clients. A server trusts the certificates of ca.
func clientCerts(t *testing.T, ca *testcert.CA) map[string]*testcert.Cert {
	t.Helper()
	leaf := testcert.Leaf{CN: "a client"}
	old := leaf
	old.Expired = true
	return map[string]*testcert.Cert{
		"good":          ca.Issue(t, leaf),
		"expired":       ca.Issue(t, old),
		"of another CA": testcert.NewCA(t, "Other CA").Issue(t, leaf),
		"no":            nil,
		"of a lower CA": ca.Intermediate(t, "Between").Issue(t, leaf), // it shows the chain
	}
}

// Programs with certificates connect to our server. The server's error is what OpenSSL has found. A
// certificate that does not verify always ends the handshake.
func TestCertificatesOfForeignClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := testd.Start(t)
	certs := clientCerts(t, w.ca)
	for _, v := range visitors {
		for _, mode := range []string{"none", "request", "require"} {
			for which, cert := range certs {
				t.Run(v.name+"/"+mode+"/"+which+" certificate", func(t *testing.T) {
					t.Parallel()
					need(t, v.tool)
					m := newMine(t, d)
					ctx, port := m.context(w.certs["ECDSA"], "client-ca",
						w.ca.File, "client-cert", mode)
					come := make(chan error, 1)
					go func() { come <- m.receive(ctx, mode, which) }()
					printed, left := v.visit(port, "localhost", w.ca.File, cert)
					testkit.Must(t, <-come)
					got := strings.HasSuffix(printed, ourPage) && left == nil
					if want := accepts(mode, which); got != want {
						t.Errorf("it has got the page: %v, want %v: %q, %v",
							got, want, printed, left)
					}
				})
			}
		}
	}
}

// accepts says whether a server takes such a client.
func accepts(mode, which string) bool {
	switch which {
	case "expired", "of another CA":
		return mode == "none" // which does not ask for it
	case "no":
		return mode != "require"
	}
	return true
}

// receive accepts one client, and checks that this ends as it must.
func (m mine) receive(ctx client.Handle, mode, which string) error {
	h, err := m.Accept(m.ctx, ctx, "", 0)
	if accepts(mode, which) {
		if err != nil {
			return err
		}
		subject, verified := "/CN=a client", "1"
		if mode == "none" || which == "no" {
			subject, verified = "", "0"
		}
		m.wants(h, "subject", subject, "verified", verified, "server-name", "localhost")
		return m.answer(h)
	}
	switch which {
	case "expired":
		failed(m.t, err, client.KindVerify, "certificate has expired (10) at depth 0, "+
			"subject /CN=a client")
	case "of another CA":
		failed(m.t, err, client.KindVerify, "subject /CN=a client; trust store: ")
	default:
		failed(m.t, err, client.KindHandshake, "peer did not return a certificate")
	}
	return nil
}
