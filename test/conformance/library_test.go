package conformance

import (
	"os"
	"strings"
	"testing"

	"tlsd/internal/testkit"
	"tlsd/session"
)

// A run for a version of OpenSSL must use that version at each level.
func TestEachLevelDrivesTheLibraryOfThisRun(t *testing.T) {
	t.Parallel()
	want := "OpenSSL " + os.Getenv("TLSD_TEST_OPENSSL")
	for _, l := range levels(t, session.Timeouts{}) {
		got, err := l.open(t, "").Version(testkit.Bounded(t), 0)
		if err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s drives %q, %v; want %q", l, got, err, want)
		}
		want = got // all drive the same
	}
}
