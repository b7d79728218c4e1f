package peers

import (
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Our server verifies the certificates of foreign clients, if its options say so. It refuses a
// client whose certificate is bad, or missing although it is required.

// clientCerts returns certificates of clients, good and bad, for a server that trusts ca.
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
		"of a lower CA": ca.Intermediate(t, "Between").Issue(t, leaf), // with the chain
	}
}

// Foreign programs connect to our server, with each certificate and each value of the option
// client-cert. The server serves the programs that it must accept. For the other programs, the
// server's error says what is wrong with the certificate.
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
						t.Errorf("%s has got the page: %v, want %v; it "+
							"printed %q, and ended with %v",
							v.name, got, want, printed, left)
					}
				})
			}
		}
	}
}

// accepts says whether a server with this mode (a value of client-cert) must accept a client with
// this certificate.
func accepts(mode, which string) bool {
	switch which {
	case "expired", "of another CA":
		return mode == "none" // the server then asks for no certificate
	case "no":
		return mode != "require"
	}
	return true
}

// receive calls Accept for one client, and checks its result. It serves a client that it must
// accept.
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
