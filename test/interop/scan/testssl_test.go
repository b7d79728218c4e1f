//go:build scan

package scan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"tlsd/internal/testcert"
)

// testssl.sh finds what our server has, and nothing bad.

// Findings of testssl.sh that are worse than OK or informative.
var testsslFindings = []finding{
	{"engine_problem WARN", "about the scanner: its openssl has no engine for GOST", ""},
	{"cert_revocation HIGH", "the certificate is one of this test, whose authority has no " +
		"list of revocations", ""},
}

// A finding that testssl.sh has only sometimes.
var testsslSometimes = finding{"sessionresumption_ticket WARN",
	"about the scanner: its s_client leaves at the end of its input, and may not wait for " +
		"the ticket, which in TLS 1.3 comes behind the handshake", ""}

// passed are checks that testssl.sh must have done with a good result. If they were left out, their
// silence would mean nothing.
var passed = []string{"SSLv2", "SSLv3", "TLS1_2", "TLS1_3", "cipherlist_NULL", "cipherlist_aNULL",
	"cipherlist_EXPORT", "cipherlist_LOW",
	"cipher_order", "cert_trust", "cert_chain_of_trust", "heartbleed", "CCS", "ROBOT",
	"secure_renego", "secure_client_renego", "CRIME_TLS", "POODLE_SSL",
	"fallback_SCSV", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4"}

func TestTestssl(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	file := filepath.Join(t.TempDir(), "report.json")
	// Protocols, suites, forward secrecy, preferences, defaults, vulnerabilities, RC4. No check
	// that asks the network outside.
	cmd := command(t, "testssl", "--protocols", "--standard", "--fs", "--server-preference",
		"--server-defaults", "--vulnerable", "--rc4",
		"--nodns=none", "--ip=127.0.0.1", "--warnings=off", "--quiet", "--color=0",
		"--openssl-timeout=60", "--add-ca="+ca.File,
		"--jsonfile="+file)
	port, version := serve(t, ca, testcert.RSA)
	cmd.Args = append(cmd.Args, "localhost:"+strconv.Itoa(port))
	out := run(t, cmd)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var report []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var found, good []string
	for _, r := range report {
		switch r.Severity {
		case "OK":
			good = append(good, r.ID)
		case "INFO", "DEBUG":
		default:
			found = append(found, r.ID+" "+r.Severity)
			t.Logf("%s %s: %s", r.ID, r.Severity, r.Finding)
		}
	}
	compare(t, version, found, testsslFindings, testsslSometimes)
	for _, id := range passed {
		if !slices.Contains(good, id) {
			t.Errorf("testssl.sh does not say OK to %s", id)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}
