package certs

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"

	"tlsd/internal/testkit"
	"tlsd/openssl"
)

// A server cannot have a certificate or key that a client of the same security level would refuse.
// NewServerContext fails, and its error names the PEM block. Since OpenSSL 3.5, a server can have a
// certificate with a weak signature, and only clients refuse it.
func TestAServerCannotShowWhatIsTooWeak(t *testing.T) {
	t.Parallel()
	lib, err := openssl.Load(os.Getenv("TLSD_TEST_LIBSSL"))
	testkit.Must(t, err)
	root := newRoot(t, "Root", newKey(t))
	for name, tc := range map[string]struct {
		chain chain
		block int    // the refused PEM block; 0: all are accepted
		says  string // part of the reason
		until string // from this version of OpenSSL on, all are accepted
	}{
		"RSA with 2048 bits": {root.leafWith(rsaKey(t, 2048)), 0, "", ""},
		"RSA with 1024 bits": {root.leafWith(rsaKey(t, 1024)), 1, "ee key too small", ""},
		"intermediate's RSA with 1024": {root.sub("Between", rsaKey(t, 1024)).leaf(), 2,
			"ca key too small", ""},
		"signed with SHA-1": {root.leaf(signedWith(x509.ECDSAWithSHA1)), 1,
			"ca md too weak", "3.5"},
		"intermediate signed with SHA-1": {root.sub("Between", newKey(t),
			signedWith(x509.ECDSAWithSHA1)).leaf(), 2, "ca md too weak", "3.5"},
		"Ed25519": {root.leafWith(edKey(t)), 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.until != "" && strings.TrimPrefix(lib.Version(),
				"OpenSSL ") >= tc.until {
				tc.block = 0
			}
			ctx, err := lib.NewServerContext(pemOf(tc.chain.shown...),
				pemOfKey(t, tc.chain.key))
			if err == nil {
				ctx.Free()
			}
			var bad *openssl.PEMError
			switch {
			case tc.block == 0 && err != nil:
				t.Errorf("NewServerContext fails: %v; want success", err)
			case tc.block != 0 && (!errors.As(err, &bad) || bad.What != "certificate" ||
				bad.Block != tc.block || !strings.Contains(bad.Reason, tc.says)):
				t.Errorf("NewServerContext: %v; want an error about block %d of "+
					"the certificate, with the text %q", err, tc.block, tc.says)
			}
		})
	}
}

func pemOfKey(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	testkit.Must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
