package conformance

import (
	"os"
	"strings"
	"testing"

	"tlsd/internal/testkit"
	"tlsd/session"
)

// Our side uses the same version of OpenSSL at each level: the one that TLSD_TEST_OPENSSL requires,
// if it is set.
func TestEachLevelDrivesTheLibraryOfThisRun(t *testing.T) {
	t.Parallel()
	want := "OpenSSL " + os.Getenv("TLSD_TEST_OPENSSL")
	for _, l := range levels(t, session.Timeouts{}) {
		got, err := l.open(t, "").Version(testkit.Bounded(t), 0)
		if err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("the level %s uses %q, %v; want %q", l, got, err, want)
		}
		want = got // the levels that follow must use the same version
	}
}
