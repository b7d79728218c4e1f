package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// crypto/x509 makes the certificates as far as it can. Extensions that it would refuse are given as
// bytes. What it cannot make at all is patched into a finished certificate, which is then signed
// again.

// An issuer is an authority, which can sign certificates.
type issuer struct {
	t *testing.T
	// cert is the authority's certificate without the changes of patch, because crypto/x509
	// cannot parse a certificate with them. When the authority signs, crypto/x509 takes the
	// issuer's name from cert.
	cert *x509.Certificate
	der  []byte // the authority's certificate, with the changes of patch
	key  crypto.Signer
	up   [][]byte // der and the authorities above it, without the root
}

// A chain has the certificates that a server shows, and those that its client trusts.
type chain struct {
	shown [][]byte // DER, the server's own first
	key   crypto.Signer
	trust [][]byte // DER; nil: the root
}

type change func(*x509.Certificate)

// newRoot makes a self-signed authority.
func newRoot(t *testing.T, cn string, key crypto.Signer, changes ...change) *issuer {
	t.Helper()
	tmpl := authority(cn, changes)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	testkit.Must(t, err)
	return &issuer{t: t, cert: parse(t, der), der: der, key: key}
}

// sub makes an authority below the authority i.
func (i *issuer) sub(cn string, key crypto.Signer, changes ...change) *issuer {
	i.t.Helper()
	der := i.sign(authority(cn, changes), key)
	return &issuer{t: i.t, cert: parse(i.t, der), der: der, key: key,
		up: append([][]byte{der}, i.up...)}
}

// leaf makes a server's certificate, for host.test unless changed. Its chain goes up to the root,
// without the root.
func (i *issuer) leaf(changes ...change) chain { return i.leafWith(newKey(i.t), changes...) }

func (i *issuer) leafWith(key crypto.Signer, changes ...change) chain {
	i.t.Helper()
	return chain{shown: append([][]byte{i.sign(server(changes), key)}, i.up...), key: key}
}

func (i *issuer) sign(tmpl *x509.Certificate, key crypto.Signer) []byte {
	i.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, i.cert, key.Public(), i.key)
	testkit.Must(i.t, err)
	return der
}

// patch returns a copy of the authority i. In the certificate of the copy, the bytes of the
// parameter new replace those of the parameter old. The signer has signed this certificate again.
// If i is a root, the signer must be i itself. Otherwise it must be the authority above i.
func (i *issuer) patch(signer *issuer, old, new []byte) *issuer {
	i.t.Helper()
	c := *i
	c.der = resign(i.t, i.der, signer.key, old, new)
	if len(i.up) > 0 {
		c.up = append([][]byte{c.der}, i.up[1:]...)
	}
	return &c
}

// trusting replaces the certificates that the client trusts.
func (c chain) trusting(trust ...[]byte) chain { c.trust = trust; return c }

// notShowing removes a certificate from those that the server shows.
func (c chain) notShowing(n int) chain {
	c.shown = append(append([][]byte{}, c.shown[:n]...), c.shown[n+1:]...)
	return c
}

// alsoShowing makes the server show more certificates, after those of the chain.
func (c chain) alsoShowing(more ...[]byte) chain {
	c.shown = append(append([][]byte{}, c.shown...), more...)
	return c
}

// own replaces the server's own certificate.
func (c chain) own(der []byte) chain {
	c.shown = append([][]byte{der}, c.shown[1:]...)
	return c
}

// selfSigned makes a server's certificate that the server's own key has signed.
func selfSigned(t *testing.T, changes ...change) chain {
	t.Helper()
	key, tmpl := newKey(t), server(changes)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	testkit.Must(t, err)
	return chain{shown: [][]byte{der}, key: key}
}

func authority(cn string, changes []change) *x509.Certificate {
	tmpl := base(cn)
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	return apply(tmpl, changes)
}

func server(changes []change) *x509.Certificate {
	tmpl := base("leaf")
	tmpl.KeyUsage, tmpl.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	tmpl.DNSNames = []string{"host.test"}
	return apply(tmpl, changes)
}

func base(cn string) *x509.Certificate {
	// rand.Int with this reader never fails
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}

func apply(tmpl *x509.Certificate, changes []change) *x509.Certificate {
	for _, f := range changes {
		f(tmpl)
	}
	return tmpl
}

// Changes to a template.

func named(dns ...string) change { return func(c *x509.Certificate) { c.DNSNames = dns } }

func called(cn string) change { return func(c *x509.Certificate) { c.Subject.CommonName = cn } }

func at(ips ...string) change {
	return func(c *x509.Certificate) {
		c.DNSNames = nil
		for _, s := range ips {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(s))
		}
	}
}

// valid sets the validity, in hours from now.
func valid(from, to int) change {
	return func(c *x509.Certificate) {
		c.NotBefore = time.Now().Add(time.Duration(from) * time.Hour)
		c.NotAfter = time.Now().Add(time.Duration(to) * time.Hour)
	}
}

func usage(u x509.KeyUsage) change { return func(c *x509.Certificate) { c.KeyUsage = u } }

func purpose(p ...x509.ExtKeyUsage) change {
	return func(c *x509.Certificate) { c.ExtKeyUsage = p }
}

func signedWith(a x509.SignatureAlgorithm) change {
	return func(c *x509.Certificate) { c.SignatureAlgorithm = a }
}

func pathLength(n int) change {
	return func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
}

func notCA(c *x509.Certificate) { c.IsCA = false }

func noBasicConstraints(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false }

// extension adds an extension as it is. It replaces the extension of that kind that crypto/x509
// would make.
func extension(id asn1.ObjectIdentifier, critical bool, value []byte) change {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions,
			pkix.Extension{Id: id, Critical: critical, Value: value})
	}
}

var (
	oidUnknown          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1}
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// tlv returns a DER element of less than 64 KiB. The tag is the whole first byte.
func tlv(tag byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	n := len(body)
	switch {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, body...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, body...)
	}
	return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, body...)
}

// The tags of a GeneralName (RFC 5280 section 4.2.1.6).
const (
	nameMail    = 0x81
	nameDNS     = 0x82
	nameDir     = 0xa4
	nameAddress = 0x87
	sequence    = 0x30
)

// altName sets a subjectAltName of one name. tag is the kind of the name.
func altName(tag byte, value string) change {
	return extension(oidSAN, false, tlv(sequence, tlv(tag, []byte(value))))
}

// A certificate has three parts (RFC 5280 section 4.1). The signature is over the bytes of TBS.
type certificate struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

func open(t *testing.T, der []byte) (c certificate) {
	t.Helper()
	_, err := asn1.Unmarshal(der, &c)
	testkit.Must(t, err)
	return c
}

func (c certificate) der(t *testing.T) []byte {
	t.Helper()
	der, err := asn1.Marshal(c)
	testkit.Must(t, err)
	return der
}

// resign replaces old by new in the signed part of a certificate, and signs this part again with an
// ECDSA key. old must occur exactly once.
func resign(t *testing.T, der []byte, key crypto.Signer, old, new []byte) []byte {
	t.Helper()
	c := open(t, der)
	if n := bytes.Count(c.TBS.Bytes, old); n != 1 {
		t.Fatalf("the bytes to replace occur %d times, want once", n)
	}
	c.TBS.FullBytes = tlv(sequence, bytes.Replace(c.TBS.Bytes, old, new, 1))
	sum := sha256.Sum256(c.TBS.FullBytes)
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	testkit.Must(t, err)
	c.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	return c.der(t)
}

// withMD5 returns the certificate, signed again with an RSA key and MD5.
func withMD5(t *testing.T, der []byte, key *rsa.PrivateKey) []byte {
	t.Helper()
	c := open(t, der)
	md5RSA := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1,
		4}, Parameters: asn1.NullRawValue}
	is, err := asn1.Marshal(md5RSA)
	testkit.Must(t, err)
	was, err := asn1.Marshal(c.Algorithm)
	testkit.Must(t, err)
	c.TBS.FullBytes = tlv(sequence, bytes.Replace(c.TBS.Bytes, was, is, 1))
	c.Algorithm = md5RSA
	sum := md5.Sum(c.TBS.FullBytes)
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.MD5, sum[:])
	testkit.Must(t, err)
	c.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	return c.der(t)
}

// damaged returns the certificate with a wrong signature.
func damaged(t *testing.T, der []byte) []byte {
	t.Helper()
	c := open(t, der)
	c.Signature.Bytes[len(c.Signature.Bytes)-1] ^= 1
	return c.der(t)
}

// mislabelled returns the certificate with two names of signature algorithms that differ. Every
// certificate names its algorithm twice, inside and outside of the signed part. mislabelled changes
// the name outside.
func mislabelled(t *testing.T, der []byte) []byte {
	t.Helper()
	c := open(t, der)
	// ecdsa-with-SHA384
	c.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	return c.der(t)
}

func newKey(t *testing.T) crypto.Signer { return curve(t, elliptic.P256()) }

func curve(t *testing.T, c elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	testkit.Must(t, err)
	return key
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	testkit.Must(t, err)
	return key
}

func edKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	testkit.Must(t, err)
	return key
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	testkit.Must(t, err)
	return c
}

func pemOf(ders ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range ders {
		// no error is possible: a bytes.Buffer takes all bytes
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.Bytes()
}
