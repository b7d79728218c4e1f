package confine

import (
	"maps"
	"os"
	"testing"

	"github.com/landlock-lsm/go-landlock/landlock"
)

// A request to confine the process comes in the variable EnvName. Without a request, Restart
// confines nothing. In a program that has executed itself again, the variable has the reports of
// the measures, and Restart returns these reports. Restart always removes the variable.
func TestWithoutARequestNothingIsConfined(t *testing.T) {
	// Not parallel: it sets the environment.
	for state, want := range map[string]Measures{
		"":                                      nil,
		`{"landlock":"on","capabilities":"no"}`: {"landlock": On, "capabilities": "no"},
		"nonsense": {
			"landlock": `not known: TLSD_WORKER_CONFINE="nonsense": ` +
				"invalid character 'o' in literal null (expecting 'u')"},
	} {
		t.Setenv(EnvName, state)
		if got := Restart(); !maps.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%q: Restart returns %v; want %v", state, got, want)
		}
		if v, ok := os.LookupEnv(EnvName); ok {
			t.Errorf("%q: after Restart the variable is still there, with the value %q",
				state, v)
		}
	}
}

// For each version of Landlock, the function handled returns the rights that package go-landlock
// lists. The rights of the network are left out.
func TestRightsAreThoseOfTheKernelsVersion(t *testing.T) {
	t.Parallel()
	for i, c := range []landlock.Config{
		landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6,
		landlock.V7, landlock.V8, landlock.V9, landlock.V10, landlock.V11,
	} {
		got := handled(i + 1)
		if got.HandledAccessFS != uint64(c.HandledAccessFS) ||
			got.Scoped != uint64(c.Scoped) {
			t.Errorf("version %d of Landlock: handled returns %+v; want %v", i+1, got,
				c)
		}
	}
}

// Landlock before version 3 cannot forbid to truncate files. For such a version, the function
// truncation returns an error, which its caller reports.
func TestLandlockWithoutTruncationIsReported(t *testing.T) {
	t.Parallel()
	for version, ok := range map[int]bool{1: false, 2: false, 3: true, 7: true} {
		if err := truncation(version); (err == nil) != ok {
			t.Errorf("version %d of Landlock: truncation returns %v; want an error "+
				"only before version 3", version, err)
		}
	}
}
