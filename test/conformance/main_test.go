// Package conformance compares our side of TLS with others. Some tests run for every pair of a
// client and a server. The endpoints of the pairs are our side, Go's crypto/tls, and OpenSSL's
// command line (s_client, s_server). Other tests connect our side with a peer of their own, or send
// bad input, and compare the errors with the table of errors in proto.md.
//
// Our side is tried at three levels (internal/ours): in process, through the real daemon and its
// socket, and through the plugin in a host in C. All levels use the machine's libssl, or the one
// that make libssl-matrix gives them. TLSD_TEST_LEVEL names a level, and the tests then run at that
// level only. A pair without our side shows that the test itself is right. The table unable lists
// what an endpoint cannot do, with the reason.
//
// Peers listen on loopback. Keys and certificates are made when tests run.
package conformance

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tlsd/internal/ours"
	"tlsd/internal/testcert"
	"tlsd/internal/testd"
)

func TestMain(m *testing.M) {
	testd.Main(m, ours.NothingLeft, func() error { return goleak.Find() })
}

// marker is in every payload of these tests. The logs are searched for it.
const marker = "payload-marker-8f3a61"

// password protects the encrypted keys of these tests.
const password = "password-marker-5d20c7"

// daemon starts a tlsd that logs as much as it can. When the daemon has ended, the test searches
// its log. The log must have no payload, no password, and no piece of a private key.
func daemon(t *testing.T, flags ...string) *testd.Daemon {
	t.Helper()
	return daemonWith(t, testd.Options{Flags: flags})
}

func daemonWith(t *testing.T, o testd.Options) *testd.Daemon {
	t.Helper()
	o.Flags = append([]string{"--log-level=debug"}, o.Flags...)
	d := testd.StartWith(t, o)
	t.Cleanup(func() {
		d.Stop(t)
		log := d.Log(t)
		if !strings.Contains(log, "session") {
			t.Errorf("the log has no line about a session, so it may not be the "+
				"daemon's log:\n%s",
				log)
		}
		for _, leak := range leaks(log) {
			t.Errorf("the log must not have secrets, and has %s:\n%s", leak, log)
		}
	})
	return d
}

// The map keys has pieces of all private keys that the tests have made, each with the subject of
// the certificate. Any 31 characters of a full line of PEM have at least one whole piece.
var keys sync.Map

const pieceLen = 16

// leaks returns a description of each secret that it finds in a log.
func leaks(log string) []string {
	var found []string
	for _, secret := range []string{marker, password} {
		if strings.Contains(log, secret) {
			found = append(found, "the text "+secret)
		}
		if strings.Contains(strings.ToLower(log), hex.EncodeToString([]byte(secret))) {
			found = append(found, "the hexadecimal form of "+secret)
		}
		for shift := range 3 { // base64 looks different at each of the three offsets
			b := base64.StdEncoding.EncodeToString([]byte("xx"[:shift%3] + secret))
			if strings.Contains(log, b[4:len(b)-4]) {
				found = append(found, "the base64 form of "+secret)
			}
		}
	}
	if strings.Contains(log, "PRIVATE KEY") {
		found = append(found, "PEM of a private key")
	}
	keys.Range(func(piece, of any) bool {
		if strings.Contains(log, piece.(string)) {
			found = append(found, "a piece of the key of "+of.(string))
		}
		return true
	})
	return found
}

// secret stores the certificate's key in keys, and returns the certificate. No log may have the
// key.
func secret(c *testcert.Cert) *testcert.Cert {
	for line := range strings.Lines(string(c.KeyPEM)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "-----") {
			continue
		}
		for ; len(line) >= pieceLen; line = line[pieceLen:] {
			keys.Store(line[:pieceLen], c.Cert.Subject.String())
		}
	}
	return c
}

// The function leaks finds each sort of secret, and nothing in a harmless log. If it did not find
// secrets, the checks of the logs would always pass.
func TestLeaksAreFound(t *testing.T) {
	t.Parallel()
	c := secret(testcert.SelfSigned(t, testcert.Leaf{CN: "leak"}))
	for name, log := range map[string]string{
		"payload":        "wrote " + marker,
		"payload, hex":   fmt.Sprintf("wrote %X", marker),
		"base64":         base64.StdEncoding.EncodeToString([]byte("abc" + marker + "def")),
		"base64, by one": base64.StdEncoding.EncodeToString([]byte("a" + marker + "def")),
		"base64, by two": base64.StdEncoding.EncodeToString([]byte("ab" + marker + "def")),
		"password":       "with " + password,
		"key":            fmt.Sprintf("{\"msg\":%q}", c.KeyPEM[40:75]),
		"PEM":            "-----BEGIN EC PRIVATE KEY-----",
	} {
		if len(leaks(log)) == 0 {
			t.Errorf("%s: leaks does not find it in %q", name, log)
		}
	}
	if got := leaks(`{"level":"info","msg":"session ended"}`); len(got) != 0 {
		t.Errorf("leaks finds secrets in a harmless log: %v", got)
	}
}

// A world has the certificates that most tests need.
type world struct {
	ca    *testcert.CA
	other *testcert.CA   // trusted by nobody
	cert  *testcert.Cert // for localhost and 127.0.0.1
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := testcert.NewCA(t, "Test CA")
	return &world{ca: ca, other: testcert.NewCA(t, "Other CA"), cert: issue(t, ca, localhost)}
}

// localhost is the certificate that most servers of these tests have.
var localhost = testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
	IPs: []string{"127.0.0.1"}}

func issue(t *testing.T, ca *testcert.CA, l testcert.Leaf) *testcert.Cert {
	t.Helper()
	return secret(ca.Issue(t, l))
}
