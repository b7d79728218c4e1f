package peers

import (
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

func TestMain(m *testing.M) { testd.Main(m) }

// need calls testkit.Tool, unless the tool is empty. It is empty for a peer that runs in the test's
// own process.
func need(t *testing.T, tool string) {
	t.Helper()
	if tool != "" {
		testkit.Tool(t, tool)
	}
}

// A world has the certificates of a test.
type world struct {
	ca    *testcert.CA
	certs map[string]*testcert.Cert
}

const chainOfThree = "a chain of three"

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := testcert.NewCA(t, "Test CA")
	leaf := func(k testcert.KeyType) testcert.Leaf {
		return testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
			IPs: []string{"127.0.0.1"}, Key: k}
	}
	return &world{ca, map[string]*testcert.Cert{
		"RSA":     ca.Issue(t, leaf(testcert.RSA)),
		"ECDSA":   ca.Issue(t, leaf(testcert.ECDSA)),
		"Ed25519": ca.Issue(t, leaf(testcert.Ed25519)),
		// The chain of this certificate has two intermediate CAs.
		chainOfThree: ca.Intermediate(t, "Upper").Intermediate(t, "Lower").Issue(t,
			leaf(testcert.ECDSA)),
	}}
}
