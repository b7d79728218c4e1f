// Package testcert makes certificate authorities, certificates and keys for tests. The repository
// has none of them. They are generated while a test runs, into a directory that the test framework
// removes.
//
//	ca := testcert.NewCA(t, "Test CA")
//	leaf := ca.Issue(t, testcert.Leaf{CN: "localhost", IPs: []string{"127.0.0.1"}})
//	leaf.CertFile, leaf.KeyFile       // PEM files: the chain without the root, and the key
//	ca.File                           // PEM file: the root, to be trusted
//	leaf.TLS(), ca.Pool()             // the same for crypto/tls
//
// The package imports only testkit of this project, so nearly every test can import testcert. The
// functions end the test if something fails, and return no errors. They are safe for concurrent
// use.
package testcert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// KeyType is the algorithm of a key.
type KeyType int

// The key types. ECDSA is the default: all peers know it, and an RSA key takes long to make.
const (
	ECDSA   KeyType = iota // P-256
	RSA                    // 2048 bits
	Ed25519                // RFC 8410
)

// A CA is a certificate authority: a self-signed root or an intermediate.
type CA struct {
	Cert *x509.Certificate
	// File is a PEM file (ca.pem) with the certificate of this authority's root, which a peer
	// must trust.
	File string

	key   crypto.Signer
	chain []*x509.Certificate // from this authority up to, but without, the root
	root  *x509.Certificate
}

// A Leaf says which certificate to issue. The zero value is a valid certificate without a name.
type Leaf struct {
	CN  string   // common name of the subject
	DNS []string // subjectAltName: names, may have wildcards
	IPs []string // subjectAltName: addresses, as net.ParseIP reads them

	// Subject, if not nil, is the whole subject, in place of CN.
	Subject *pkix.Name

	Key KeyType

	// NotBefore and NotAfter limit the validity. Zero means an hour ago, or a day from now.
	NotBefore, NotAfter time.Time
	// With Expired, the validity ended an hour ago. With NotYet, it begins in an hour. Each of
	// them replaces NotBefore and NotAfter.
	Expired, NotYet bool
}

// A Cert is an issued certificate with its key.
type Cert struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	CertFile string // server.crt: the certificate, then its intermediates
	KeyFile  string // server.key: the key as unencrypted PKCS #8

	CertPEM, KeyPEM []byte // the contents of the two files

	dir   string
	chain [][]byte // DER: the certificate, then its intermediates
}

// NewCA makes a root authority with this common name.
func NewCA(tb testing.TB, name string) *CA {
	tb.Helper()
	key := newKey(tb, ECDSA)
	tmpl := authority(tb, name)
	cert := sign(tb, tmpl, tmpl, key.Public(), key)
	file := filepath.Join(tb.TempDir(), "ca.pem")
	writeFile(tb, file, certPEM(cert.Raw))
	return &CA{Cert: cert, File: file, key: key, root: cert}
}

// Intermediate makes an authority whose certificate ca signs. A certificate that the new authority
// issues has the new authority's own certificate in its chain.
func (ca *CA) Intermediate(tb testing.TB, name string) *CA {
	tb.Helper()
	key := newKey(tb, ECDSA)
	cert := sign(tb, authority(tb, name), ca.Cert, key.Public(), ca.key)
	return &CA{
		Cert:  cert,
		File:  ca.File,
		key:   key,
		chain: append([]*x509.Certificate{cert}, ca.chain...),
		root:  ca.root,
	}
}

// Localhost makes a certificate for localhost and 127.0.0.1, signed by ca.
func (ca *CA) Localhost(tb testing.TB) *Cert {
	tb.Helper()
	return ca.Issue(tb, Leaf{CN: "localhost", DNS: []string{"localhost"},
		IPs: []string{"127.0.0.1"}})
}

// Issue makes a certificate for TLS servers and clients, signed by ca.
func (ca *CA) Issue(tb testing.TB, l Leaf) *Cert {
	tb.Helper()
	key := newKey(tb, l.Key)
	cert := sign(tb, l.template(tb), ca.Cert, key.Public(), ca.key)
	chain := [][]byte{cert.Raw}
	for _, c := range ca.chain {
		chain = append(chain, c.Raw)
	}
	return store(tb, cert, key, chain)
}

// PEM gives the root's certificate: the contents of File.
func (ca *CA) PEM() []byte { return certPEM(ca.root.Raw) }

// Pool has the root, for crypto/tls to trust.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.root)
	return p
}

// SelfSigned makes a certificate without an authority.
func SelfSigned(tb testing.TB, l Leaf) *Cert {
	tb.Helper()
	key := newKey(tb, l.Key)
	tmpl := l.template(tb)
	cert := sign(tb, tmpl, tmpl, key.Public(), key)
	return store(tb, cert, key, [][]byte{cert.Raw})
}

// TLS is the certificate for crypto/tls.
func (c *Cert) TLS() tls.Certificate {
	return tls.Certificate{Certificate: c.chain, PrivateKey: c.Key, Leaf: c.Cert}
}

// Config is the configuration of a server of crypto/tls that has the certificate.
func (c *Cert) Config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.TLS()}}
}

// Pool has the certificate itself, for crypto/tls to trust. It is for self-signed certificates.
func (c *Cert) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.Cert)
	return p
}

// MismatchedKey writes a new key of the same type to a file, and returns the path. The key does not
// fit the certificate.
func (c *Cert) MismatchedKey(tb testing.TB) string {
	tb.Helper()
	kt := ECDSA
	switch c.Key.(type) {
	case *rsa.PrivateKey:
		kt = RSA
	case ed25519.PrivateKey:
		kt = Ed25519
	}
	return writeFile(tb, filepath.Join(c.dir, "mismatched.key"), keyPEM(tb, newKey(tb, kt)))
}

func (l Leaf) template(tb testing.TB) *x509.Certificate {
	tb.Helper()
	now := time.Now()
	from, to := l.NotBefore, l.NotAfter
	if from.IsZero() {
		from = now.Add(-time.Hour)
	}
	if to.IsZero() {
		to = now.Add(24 * time.Hour)
	}
	switch {
	case l.Expired:
		from, to = now.Add(-48*time.Hour), now.Add(-time.Hour)
	case l.NotYet:
		from, to = now.Add(time.Hour), now.Add(48*time.Hour)
	}
	subject := pkix.Name{CommonName: l.CN}
	if l.Subject != nil {
		subject = *l.Subject
	}
	t := &x509.Certificate{
		SerialNumber: serial(tb),
		Subject:      subject,
		NotBefore:    from,
		NotAfter:     to,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth,
			x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              l.DNS,
	}
	for _, s := range l.IPs {
		ip := net.ParseIP(s)
		if ip == nil {
			tb.Fatalf("testcert: %q is not an IP address", s)
		}
		t.IPAddresses = append(t.IPAddresses, ip)
	}
	return t
}

func authority(tb testing.TB, name string) *x509.Certificate {
	tb.Helper()
	return &x509.Certificate{
		SerialNumber:          serial(tb),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-24 * 7 * time.Hour),
		NotAfter:              time.Now().Add(24 * 7 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

func newKey(tb testing.TB, kt KeyType) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch kt {
	case ECDSA:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		tb.Fatalf("testcert: no key type %d", kt)
	}
	testkit.Must(tb, err)
	return key
}

func sign(tb testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey,
	signer crypto.Signer) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, signer)
	testkit.Must(tb, err)
	cert, err := x509.ParseCertificate(der)
	testkit.Must(tb, err)
	return cert
}

func store(tb testing.TB, cert *x509.Certificate, key crypto.Signer, chain [][]byte) *Cert {
	tb.Helper()
	dir := tb.TempDir()
	c := &Cert{Cert: cert, Key: key, chain: chain, dir: dir, CertPEM: certPEM(chain...),
		KeyPEM: keyPEM(tb, key)}
	c.CertFile = writeFile(tb, filepath.Join(dir, "server.crt"), c.CertPEM)
	c.KeyFile = writeFile(tb, filepath.Join(dir, "server.key"), c.KeyPEM)
	return c
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	testkit.Must(tb, err)
	return n.Add(n, big.NewInt(1))
}

func certPEM(ders ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range ders {
		// a bytes.Buffer takes everything
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.Bytes()
}

func keyPEM(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	testkit.Must(tb, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func writeFile(tb testing.TB, path string, data []byte) string {
	tb.Helper()
	testkit.Must(tb, os.WriteFile(path, data, 0o600))
	return path
}
