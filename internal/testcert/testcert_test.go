package testcert_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// handshake returns the error of the client. Both ends are crypto/tls, over TCP: with net.Pipe,
// each end could wait in a Write until the other one reads.
func handshake(tb testing.TB, cert tls.Certificate, client *tls.Config) error {
	tb.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake() // only the client's error counts
			c.Close()
		}
	}()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Minute}, "tcp",
		l.Addr().String(), client)
	if err == nil {
		c.Close()
	}
	l.Close()
	<-done
	return err
}

// A client of crypto/tls accepts the certificates that Issue makes, and refuses those that the test
// asks to be wrong.
func TestIssuedCertificatesAreAcceptedByCryptoTLS(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Root")
	sub := ca.Intermediate(t, "Inter 1").Intermediate(t, "Inter 2")
	for name, tc := range map[string]struct {
		issuer *testcert.CA
		leaf   testcert.Leaf
		host   string
		want   string // part of the error, "" for success
	}{
		"name": {ca, testcert.Leaf{CN: "a", DNS: []string{"localhost"}}, "localhost", ""},
		"address": {ca, testcert.Leaf{CN: "a", IPs: []string{"127.0.0.1"}},
			"127.0.0.1", ""},
		"chain": {sub, testcert.Leaf{CN: "a", DNS: []string{"localhost"}}, "localhost", ""},
		"rsa": {ca, testcert.Leaf{DNS: []string{"localhost"}, Key: testcert.RSA},
			"localhost", ""},
		"ed25519": {ca, testcert.Leaf{DNS: []string{"localhost"}, Key: testcert.Ed25519},
			"localhost", ""},
		"expired": {ca, testcert.Leaf{DNS: []string{"localhost"}, Expired: true},
			"localhost", "expired or is not yet valid"},
		"not yet": {ca, testcert.Leaf{DNS: []string{"localhost"}, NotYet: true},
			"localhost", "expired or is not yet valid"},
		"wrong name": {ca, testcert.Leaf{DNS: []string{"localhost"}}, "example.com",
			"not example.com"},
		"other trust": {testcert.NewCA(t, "Other"),
			testcert.Leaf{DNS: []string{"localhost"}}, "localhost",
			"unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := handshake(t, tc.issuer.Issue(t, tc.leaf).TLS(),
				&tls.Config{RootCAs: ca.Pool(), ServerName: tc.host})
			switch {
			case tc.want == "" && err != nil:
				t.Fatalf("handshake: %v", err)
			case tc.want != "" && (err == nil ||
				!strings.Contains(err.Error(), tc.want)):
				t.Fatalf("handshake: %v; want an error with %q", err, tc.want)
			}
		})
	}
}

func TestSelfSignedIsTrustedByItselfOnly(t *testing.T) {
	t.Parallel()
	c := testcert.SelfSigned(t, testcert.Leaf{DNS: []string{"localhost"}})
	if err := handshake(t, c.TLS(),
		&tls.Config{RootCAs: c.Pool(), ServerName: "localhost"}); err != nil {
		t.Fatalf("a client that trusts the self-signed certificate refuses it: %v", err)
	}
	if err := handshake(t, c.TLS(), &tls.Config{RootCAs: x509.NewCertPool(),
		ServerName: "localhost"}); err == nil {
		t.Fatal("a client that trusts no certificate accepts the self-signed one")
	}
}

func TestFilesHoldChainAndKey(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Root")
	c := ca.Intermediate(t, "Inter").Issue(t, testcert.Leaf{CN: "x"})
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(pair.Certificate); n != 2 {
		t.Errorf("server.crt has %d certificates, want 2", n)
	}
	if _, err := tls.LoadX509KeyPair(c.CertFile, c.MismatchedKey(t)); err == nil {
		t.Error("crypto/tls takes the key of MismatchedKey for the key of the certificate")
	}
	root, err := os.ReadFile(ca.File)
	if err != nil || string(root) != string(ca.PEM()) {
		t.Errorf("ca.pem differs from PEM(), or cannot be read: %v", err)
	}
}

// An encrypted key can be opened with its password only. There are two forms of encrypted keys:
// PKCS #8, and the traditional form of OpenSSL. The openssl command is the judge, because it is
// independent of this package.
func TestEncryptedKeysOpenWithTheirPasswordOnly(t *testing.T) {
	t.Parallel()
	exe := testkit.Tool(t, "openssl")
	ca := testcert.NewCA(t, "Root")
	for _, kt := range []testcert.KeyType{testcert.ECDSA, testcert.RSA} {
		c := ca.Issue(t, testcert.Leaf{CN: "x", Key: kt})
		for _, file := range []string{c.EncryptedKey(t, "secret"),
			c.EncryptedKeyTraditional(t, "secret")} {
			if out, err := exec.Command(exe, "pkey", "-in", file, "-noout", "-passin",
				"pass:secret").CombinedOutput(); err != nil {
				t.Errorf("the key %s does not open with its password: %v: %s",
					file, err, out)
			}
			if err := exec.Command(exe, "pkey", "-in", file, "-noout", "-passin",
				"pass:wrong").Run(); err == nil {
				t.Errorf("the key %s opens with a wrong password", file)
			}
		}
	}
}
