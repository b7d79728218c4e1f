package session_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/session"
)

// Facts about a handle, over the real OpenSSL.

// fact returns one fact about a handle.
func (r *rig) fact(h session.Handle, name string) string {
	r.t.Helper()
	return r.ok(r.HandleInfo(h, name)).(string)
}

func TestFactsAboutThePeersCertificate(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	h := r.handle(r.NewClient("localhost", r.echo()))
	r.fails(r.HandleInfo(h, "cipher"), kind.State)
	if got := r.fact(h, "peer-address"); !strings.HasPrefix(got, "127.0.0.1:") &&
		!strings.HasPrefix(got, "[::1]:") {
		t.Errorf("before the handshake peer-address is %q, want a loopback address", got)
	}
	r.ok(r.Handshake(h))
	leaf, err := x509.ParseCertificate(r.cert.TLS().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for name, want := range map[string]string{
		"version":     "TLSv1.3",
		"subject":     "/CN=localhost",
		"issuer":      "/CN=Test CA",
		"serial":      leaf.SerialNumber.Text(16),
		"san":         "DNS:localhost, IP:127.0.0.1",
		"not-before":  strconv.FormatInt(leaf.NotBefore.Unix(), 10),
		"not-after":   strconv.FormatInt(leaf.NotAfter.Unix(), 10),
		"sha256":      hex.EncodeToString(sum[:]),
		"key-sha256":  hex.EncodeToString(key[:]),
		"pem":         string(r.cert.CertPEM),
		"verified":    "1",
		"resumed":     "0",
		"server-name": "localhost",
		"unsent":      "0",
		"alpn":        "",
	} {
		if got := r.fact(h, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(r.fact(h, "channel-binding")) != 64 ||
		!strings.HasPrefix(r.fact(h, "chain"), r.fact(h, "pem")) ||
		r.fact(h, "cipher") == "" {
		t.Error("one fact is wrong: channel-binding must have 64 digits, chain must " +
			"begin with pem, and cipher must not be empty")
	}
}

// The owner of a certificate chooses the names in it. So a name with a comma or a NUL in it must
// not look like two names, and must not hide the names that follow.
func TestANameOfACertificateIsOneEntry(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	cert := r.ca.Issue(t, testcert.Leaf{DNS: []string{
		"localhost", "a.example, DNS:admin.example", "admin.example\x00.evil.example", "b\nc", `d"e`, `f\g`,
	}})
	shown := cert.TLS()
	show := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &shown, nil }
	port := r.serveTLS(&tls.Config{GetCertificate: show},
		func(c *tls.Conn, _ *net.TCPConn) { c.Handshake() })
	h := r.handle(r.NewClient("localhost", port))
	r.ok(r.Handshake(h))
	const want = `DNS:localhost, DNS:"a.example, DNS:admin.example", DNS:"admin.example\x00.evil.example", DNS:"b\nc", DNS:"d\"e", DNS:"f\\g"`
	if got := r.fact(h, "san"); got != want {
		t.Errorf("san is %q, want %q", got, want)
	}
}
