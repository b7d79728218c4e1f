// Package conformance compares our side of TLS with others. One body of tests runs over every pair
// of client and server. The endpoints are our side, Go's crypto/tls, and OpenSSL's command line
// (s_client, s_server). The protocol's table of errors is tried with bad input.
//
// Our side is tried at three levels (internal/ours): in process, through the real daemon and its
// socket, and through the plugin in a host in C. All levels use the machine's libssl, or the libssl
// that make libssl-matrix has for them. TLSD_TEST_LEVEL names a level, and the tests then run at
// that level only. A pair without our side proves the body of the test. The table unable has what
// an endpoint cannot do, at any level, with the reason.
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

// daemon starts a tlsd that logs as much as it can. When it has ended, its log is searched: it may
// have neither payload nor keys.
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
			t.Errorf("the log does not speak of sessions: is it the log?\n%s", log)
		}
		for _, leak := range leaks(log) {
			t.Errorf("the log has %s:\n%s", leak, log)
		}
	})
	return d
}

// keys has pieces of all private keys that the tests have made, with a description of each. Each 31
// characters of a key's PEM have at least one piece.
var keys sync.Map

const pieceLen = 16

// leaks lists what a log must not have.
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

// secret notes a certificate's key as one that no log may have.
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

// The search must find a piece of a key. Otherwise the check of the logs would show nothing.
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
			t.Errorf("%s: not found in %q", name, log)
		}
	}
	if got := leaks(`{"level":"info","msg":"session ended"}`); len(got) != 0 {
		t.Errorf("found in a harmless log: %v", got)
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

// localhost is what most servers are called here.
var localhost = testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
	IPs: []string{"127.0.0.1"}}

func issue(t *testing.T, ca *testcert.CA, l testcert.Leaf) *testcert.Cert {
	t.Helper()
	return secret(ca.Issue(t, l))
}
