package testcert

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"path/filepath"
	"testing"

	"tlsd/internal/testkit"
)

// EncryptedKey encrypts the key with a password, writes it to a file, and returns the path. The
// form is PKCS #8 ("BEGIN ENCRYPTED PRIVATE KEY", RFC 5958 with PBES2 of RFC 8018).
func (c *Cert) EncryptedKey(tb testing.TB, password string) string {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	testkit.Must(tb, err)
	block := &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: pbes2(tb, der, password)}
	return writeFile(tb, filepath.Join(c.dir, "encrypted.key"), pem.EncodeToMemory(block))
}

// EncryptedKeyTraditional is EncryptedKey in the form that OpenSSL used before PKCS #8: PEM with
// the header "Proc-Type: 4,ENCRYPTED" of RFC 1421. The key must be ECDSA or RSA, because Ed25519
// has no such form.
func (c *Cert) EncryptedKeyTraditional(tb testing.TB, password string) string {
	tb.Helper()
	name, der := traditional(tb, c.Key)
	//lint:ignore SA1019 the deprecated form is what a test needs here
	block, err := x509.EncryptPEMBlock(rand.Reader, name, der, []byte(password),
		x509.PEMCipherAES256)
	testkit.Must(tb, err)
	return writeFile(tb, filepath.Join(c.dir, "encrypted-traditional.key"),
		pem.EncodeToMemory(block))
}

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

type algorithm struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue
}

// pbes2 encrypts a PKCS #8 structure with AES-256-CBC. PBKDF2 with HMAC-SHA-256 makes the AES key
// from the password.
func pbes2(tb testing.TB, der []byte, password string) []byte {
	tb.Helper()
	const iterations = 2048
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	_, _ = rand.Read(iv)

	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, 32)
	testkit.Must(tb, err)
	aesBlock, err := aes.NewCipher(key)
	testkit.Must(tb, err)
	pad := aes.BlockSize - len(der)%aes.BlockSize
	padded := append([]byte(nil), der...)
	for range pad {
		padded = append(padded, byte(pad))
	}
	cipher.NewCBCEncrypter(aesBlock, iv).CryptBlocks(padded, padded)

	raw := func(v any) asn1.RawValue {
		b, err := asn1.Marshal(v)
		testkit.Must(tb, err)
		return asn1.RawValue{FullBytes: b}
	}
	kdf := algorithm{oidPBKDF2, raw(struct {
		Salt       []byte
		Iterations int
		PRF        algorithm
	}{salt, iterations, algorithm{oidHMACSHA256, asn1.NullRawValue}})}
	enc := algorithm{oidAES256CBC, raw(iv)}
	out, err := asn1.Marshal(struct {
		Algorithm algorithm
		Data      []byte
	}{algorithm{oidPBES2, raw(struct{ KDF, Enc algorithm }{kdf, enc})}, padded})
	testkit.Must(tb, err)
	return out
}

// traditional returns a key in its algorithm's own encoding, and the PEM label of that encoding.
func traditional(tb testing.TB, key crypto.Signer) (label string, der []byte) {
	tb.Helper()
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		testkit.Must(tb, err)
		return "EC PRIVATE KEY", der
	}
	tb.Fatalf("testcert: a key of type %T has no traditional form", key)
	return "", nil
}
