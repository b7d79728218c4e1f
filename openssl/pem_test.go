package openssl_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/openssl"
)

func pemOf(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func TestCABundlesAreReadAndChecked(t *testing.T) {
	t.Parallel()
	l := load(t)
	ca, leaf := testcert.NewCA(t, "CA"), testcert.SelfSigned(t, testcert.Leaf{CN: "x"})
	good := ca.PEM()
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	var many bytes.Buffer // OpenSSL would accept none of them; their number is checked first
	for i := range openssl.MaxCAs + 1 {
		many.Write(pemOf("CERTIFICATE", []byte(strconv.Itoa(i))))
	}
	badDER := bytes.Clone(ca.Cert.Raw[:len(ca.Cert.Raw)-20])

	for name, tc := range map[string]struct {
		pem  []byte
		says string // "" for success
	}{
		"one":      {good, ""},
		"repeated": {join(good, good, good), ""},
		"comments": {join([]byte("# comment\n\nSubject: CN=x\n"), good,
			[]byte("tail without line feed")), ""},
		"CRLF":              {bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), ""},
		"byte order mark":   {join([]byte("\xef\xbb\xbf"), good), ""},
		"old label":         {pemOf("X509 CERTIFICATE", ca.Cert.Raw), ""},
		"trusted label":     {pemOf("TRUSTED CERTIFICATE", ca.Cert.Raw), ""},
		"key beside it":     {join(leaf.KeyPEM, good), ""},
		"no final newline":  {bytes.TrimSpace(good), ""},
		"encrypted key too": {join(readFile(t, leaf.EncryptedKey(t, "secret")), good), ""},

		"empty": {nil, "ca.pem is empty"},
		"blank": {[]byte(" \r\n\n"), "ca.pem is empty"},
		"text": {[]byte("hello\n"), "ca.pem is not PEM: it has no line that begins with " +
			"-----BEGIN"},
		"DER": {ca.Cert.Raw, "ca.pem is not PEM: it is binary"},
		"only a key": {leaf.KeyPEM,
			`ca.pem has no certificate: its first PEM block is "PRIVATE KEY"`},
		"cut short": {good[:len(good)/2], "ca.pem: PEM block 1 (line 1) has no END line: " +
			"the file is cut short"},
		"cut short inside": {join(good[:len(good)/2], []byte("\n"), good),
			"ca.pem: PEM block 1 (line 1) has no END line"},
		"other END": {bytes.Replace(good, []byte("END CERTIFICATE"), []byte("END KEY"), 1),
			`begins as "CERTIFICATE" and ends as "KEY"`},
		"bad base64": {join(good, bytes.Replace(good, []byte("\nMII"), []byte("\n!!!"), 1)),
			"ca.pem: PEM block 2"},
		"encrypted certificate": {bytes.Replace(good, []byte("CERTIFICATE-----\n"),
			[]byte("CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: "+
				"AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n"), 1),
			"is not a valid certificate"},
		"bad certificate": {join([]byte("#\n"), good, pemOf("CERTIFICATE", badDER)),
			"is not a valid certificate"},
		"not a certificate": {pemOf("CERTIFICATE", []byte("hello")),
			"ca.pem: PEM block 1 (line 1) is not a valid certificate"},
		"too many": {many.Bytes(),
			"ca.pem has 5001 different certificates: 5000 is the most"},
		"repeated too often": {bytes.Repeat(good, openssl.MaxCAs+1), ""},
		"too large": {bytes.Repeat([]byte("#"), openssl.MaxPEM+1), "ca.pem has 33554433 " +
			"bytes: 33554432 is the most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := l.ParseCABundle("ca.pem", tc.pem)
			if tc.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				b.Free()
				return
			}
			var p *openssl.PEMError
			if !errors.As(err, &p) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want a PEMError that says %q", err, tc.says)
			}
		})
	}
}

func TestBadBlocksAreLocated(t *testing.T) {
	t.Parallel()
	good := testcert.NewCA(t, "CA").PEM()
	data := bytes.Join([][]byte{[]byte("# one\n"), good, []byte("# two\n"),
		pemOf("CERTIFICATE", []byte("bad"))}, nil)
	_, err := load(t).ParseCABundle("ca.pem", data)
	var p *openssl.PEMError
	if !errors.As(err, &p) {
		t.Fatal("want a PEMError: ", err)
	}
	line := bytes.Count(data[:bytes.LastIndex(data, []byte("-----BEGIN"))], []byte("\n")) + 1
	if p.What != "ca.pem" || p.Block != 2 || p.Line != line || len(p.Queue) == 0 {
		t.Errorf("the error is %+v, want ca.pem, block 2, line %d, and OpenSSL's queue", p,
			line)
	}
}

func TestServerFilesAreChecked(t *testing.T) {
	t.Parallel()
	l := load(t)
	ca := testcert.NewCA(t, "CA")
	cert := ca.Issue(t, testcert.Leaf{CN: "x"})
	rsa := ca.Issue(t, testcert.Leaf{CN: "x", Key: testcert.RSA})
	chained := ca.Intermediate(t, "sub").Issue(t, testcert.Leaf{CN: "x"})
	ec, err := os.ReadFile(cert.EncryptedKeyTraditional(t, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	both := join(cert.KeyPEM, cert.CertPEM)
	encrypted := "is encrypted: tlsd never asks for a password; remove it with `openssl pkey`"

	for name, tc := range map[string]struct {
		cert, key []byte
		says      string // "" for success
	}{
		"two files": {cert.CertPEM, cert.KeyPEM, ""},
		"one file":  {both, both, ""},
		"key after others": {cert.CertPEM,
			join([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END "+
				"EC PARAMETERS-----\n"), cert.KeyPEM), ""},
		"RSA": {rsa.CertPEM, rsa.KeyPEM, ""},
		"encrypted key in the certificate's file": {join(ec, cert.CertPEM),
			cert.KeyPEM, ""},

		"empty certificate": {nil, cert.KeyPEM, "certificate is empty"},
		"empty key":         {cert.CertPEM, nil, "key is empty"},
		"binary certificate": {cert.Cert.Raw, cert.KeyPEM, "certificate is not PEM: it " +
			"is binary"},
		"binary key": {cert.CertPEM, []byte{0x30, 0x82, 0, 1},
			"key is not PEM: it is binary"},
		"no certificate": {cert.KeyPEM, cert.KeyPEM,
			`certificate has no certificate in it: its first PEM block is "PRIVATE KEY"`},
		"no key": {cert.CertPEM, cert.CertPEM,
			`key has no private key in it: its first PEM block is "CERTIFICATE"`},
		"bad certificate": {pemOf("CERTIFICATE", []byte("x")), cert.KeyPEM,
			"certificate: PEM block 1 (line 1) is not a valid certificate"},
		"bad intermediate": {join(cert.CertPEM, pemOf("CERTIFICATE", []byte("x"))),
			cert.KeyPEM, "certificate: PEM block 2"},
		"bad key": {cert.CertPEM, pemOf("PRIVATE KEY", []byte("x")), "key: PEM block 1 " +
			"(line 1) is not a valid private key"},
		"OpenSSH key": {cert.CertPEM, pemOf("OPENSSH PRIVATE KEY", []byte("x")),
			"OpenSSH's own format"},
		"encrypted PKCS #8": {cert.CertPEM, readFile(t, cert.EncryptedKey(t, "secret")),
			encrypted},
		"encrypted with an empty password": {cert.CertPEM,
			readFile(t, cert.EncryptedKey(t, "")), encrypted},
		"encrypted traditional": {cert.CertPEM, ec, encrypted},
		"encrypted in one file": {join(cert.CertPEM, ec),
			join(cert.CertPEM, ec), encrypted},
		"other key": {cert.CertPEM, readFile(t, cert.MismatchedKey(t)),
			"does not match the certificate"},
		"key of other type": {cert.CertPEM, rsa.KeyPEM, "does not match the certificate"},
		"chain in wrong order": {join(chained.CertPEM[bytes.LastIndex(chained.CertPEM,
			[]byte("-----BEGIN")):], chained.CertPEM),
			chained.KeyPEM, "does not match the certificate; in a chain, the " +
				"server's own certificate must come first"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, err := l.NewServerContext(tc.cert, tc.key)
			if tc.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				ctx.Free()
				return
			}
			var p *openssl.PEMError
			if !errors.As(err, &p) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("error %v, want a PEMError that says %q", err, tc.says)
			}
			if p.What != "certificate" && p.What != "key" {
				t.Errorf("the error's field What is %q, want certificate or key",
					p.What)
			}
		})
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Any file gives an error or a bundle, and nothing else happens.
func FuzzParseCABundle(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\n-----END X-----\n"))
	f.Add(testcert.NewCA(f, "CA").PEM())
	l := load(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := l.ParseCABundle("fuzz.pem", data)
		if (b == nil) == (err == nil) {
			t.Errorf("the bundle is %v and the error %v: want one of the two", b, err)
		}
		if b != nil {
			b.Free()
		}
	})
}
