package peers

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
)

func TestMain(m *testing.M) { testd.Main(m) }

// patience bounds every wait of a test, and the life of every process that it starts.
const patience = 3 * time.Minute

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bounded is a context that ends with the test, or when patience does.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// need skips a test without a tool; TLSD_TEST_STRICT=1 fails it.
func need(t *testing.T, tool string) {
	t.Helper()
	if tool == "" {
		return
	}
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("TLSD_TEST_STRICT") == "1" {
		t.Fatalf("TLSD_TEST_STRICT=1: %s is not installed", tool)
	}
	t.Skipf("%s is not installed", tool)
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
		return testcert.Leaf{CN: "localhost", DNS: []string{"localhost"}, IPs: []string{"127.0.0.1"}, Key: k}
	}
	return &world{ca, map[string]*testcert.Cert{
		"RSA":     ca.Issue(t, leaf(testcert.RSA)),
		"ECDSA":   ca.Issue(t, leaf(testcert.ECDSA)),
		"Ed25519": ca.Issue(t, leaf(testcert.Ed25519)),
		// The server's own, and two between it and the root.
		chainOfThree: ca.Intermediate(t, "Upper").Intermediate(t, "Lower").Issue(t, leaf(testcert.ECDSA)),
	}}
}
