package version

import (
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

// A version names the first 12 digits of its commit. If the source had changes that were not
// committed, "+changes" follows the digits.
func TestCommitIsShortAndTellsOfChanges(t *testing.T) {
	t.Parallel()
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123"}
	for _, tt := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{nil, ""},
		{[]debug.BuildSetting{revision}, "0123456789ab"},
		{[]debug.BuildSetting{revision, {Key: "vcs.modified", Value: "false"}},
			"0123456789ab"},
		{[]debug.BuildSetting{{Key: "vcs.modified", Value: "true"}, revision},
			"0123456789ab+changes"},
		{[]debug.BuildSetting{{Key: "vcs.modified", Value: "true"}}, ""},
	} {
		if got := fromSettings(tt.settings); got != tt.want {
			t.Errorf("the commit of the build settings %v is %q, want %q", tt.settings,
				got, tt.want)
		}
	}
}

func TestLineHasTheVersion(t *testing.T) {
	t.Parallel()
	if got := Line("tlsd"); !strings.HasPrefix(got, "tlsd "+Version+" (go1.") {
		t.Errorf("Line returns %q; want tlsd, the version, and the version of Go", got)
	}
}

// The plugin's header has the same version, as text and as a number for the preprocessor.
func TestHeaderHasTheSameVersion(t *testing.T) {
	t.Parallel()
	header, err := os.ReadFile("../../cmd/tlsshim/plugin/tlsplugin.h")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(
		`(?m)^#define TLSPLUGIN_VERSION_(MAJOR|MINOR|PATCH) (\d+)$`).FindAllSubmatch(header,
		-1)
	if len(m) != 3 {
		t.Fatalf("the header has %d parts of its version, want 3", len(m))
	}
	if got := string(m[0][2]) + "." + string(m[1][2]) + "." + string(m[2][2]); got != Version {
		t.Errorf("the header is of version %s, the source of %s", got, Version)
	}
}
