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

// testssl.sh reports each check of the list passed as OK. It has bad findings, too, but they are
// about the scanner and the test, and not about our server.

// testsslFindings are the expected findings that testssl.sh rates worse than OK and INFO.
var testsslFindings = []finding{
	{"engine_problem WARN", "about the scanner: its openssl has no engine for GOST", ""},
	{"cert_revocation HIGH", "about the test: its CA has no list of revoked " +
		"certificates", ""},
}

// testssl.sh has this finding only sometimes.
var testsslSometimes = finding{"sessionresumption_ticket WARN",
	"about the scanner: in TLS 1.3 the ticket comes after the handshake, and its s_client " +
		"may end before", ""}

// The list passed has the checks that testssl.sh must report as OK. Without this list, a check that
// testssl.sh has left out would count as good.
var passed = []string{"SSLv2", "SSLv3", "TLS1_2", "TLS1_3", "cipherlist_NULL", "cipherlist_aNULL",
	"cipherlist_EXPORT", "cipherlist_LOW",
	"cipher_order", "cert_trust", "cert_chain_of_trust", "heartbleed", "CCS", "ROBOT",
	"secure_renego", "secure_client_renego", "CRIME_TLS", "POODLE_SSL",
	"fallback_SCSV", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4"}

// testssl.sh reports OK for each check in passed, and nothing bad besides testsslFindings.
func TestTestssl(t *testing.T) {
	t.Parallel()
	ca := testcert.NewCA(t, "Test CA")
	file := filepath.Join(t.TempDir(), "report.json")
	// No check that needs the network is run.
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
		t.Fatalf("testssl.sh has written no report: %v\n%s", err, out)
	}
	var report []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatalf("the report of testssl.sh is no JSON: %v\n%s", err, text)
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
			t.Errorf("testssl.sh does not report OK for the check %s", id)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}
