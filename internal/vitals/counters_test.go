package vitals

import (
	"math"
	"testing"
	"time"
)

// A counter overlaps no other counter, and none of the other parts of the page.
func TestCountersHaveAWordEach(t *testing.T) {
	t.Parallel()
	page, file, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	defer file.Close()
	all := []Counter{BytesIn, BytesOut, Connections, Contexts, HandshakeTime, Reloaded,
		NotReloaded}
	for i := range len(Buckets) + 1 {
		all = append(all, Bucket(i))
	}
	for i := range Outcomes {
		all = append(all, Handshakes(false, i), Handshakes(true, i))
	}
	if len(all) != NumCounters || countersAt+8*NumCounters > certificatesAt {
		t.Fatalf("the test has %d counters, NumCounters is %d, and the page has %d bytes "+
			"for them", len(all), NumCounters, certificatesAt-countersAt)
	}
	page.Enter(Threads-1, "tls.Read", 0)
	notes, err := page.Session(0)
	if err != nil {
		t.Fatal(err)
	}
	notes.Calling("tls.Write", 7)
	for i, c := range all {
		page.Count(c, int64(i)+1)
	}
	for i, c := range all {
		if got := page.Read(c); got != uint64(i)+1 {
			t.Errorf("counter %d is %d, want %d", c, got, i+1)
		}
	}
	if in := page.Inside(); len(in) != 1 || in[Threads-1].Method != "tls.Read" {
		t.Errorf("the counters have overwritten the threads: %v", in)
	}
	if method, h := notes.InFlight(); method != "tls.Write" || h != 7 {
		t.Errorf("the counters have overwritten the session's call: %s on handle %d; want "+
			"tls.Write on handle 7", method, h)
	}
	page.Count(Contexts, -1)
	if got := page.Read(Contexts); got != 3 {
		t.Errorf("after Count(Contexts, -1), the counter is %d; want 3", got)
	}
}

// A handshake is counted in the first bucket whose bound is at least its time. A last bucket counts
// the handshakes that took longer than all bounds.
func TestTimesAreInTheirBucket(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]int{
		0: 0, time.Millisecond: 0, time.Millisecond + 1: 1,
		10 * time.Second: len(Buckets) - 1, time.Hour: len(Buckets),
	} {
		if got := BucketOf(took); got != Bucket(want) {
			t.Errorf("a time of %v is counted by the counter %d, want %d", took, got,
				Bucket(want))
		}
	}
}

// If an outcome of a handshake has no counter of its own, the counter "other" counts it.
func TestOutcomesThatNobodyKnowsAreOthers(t *testing.T) {
	t.Parallel()
	for o, want := range map[Outcome]Outcome{
		{"ok", "TLSv1.3"}: {"ok", "TLSv1.3"}, {"ok", "TLSv1"}: {"ok", "other"},
		{"verify", ""}: {"verify", ""}, {"internal", ""}: {"other", ""},
	} {
		if got := Outcomes[OutcomeOf(o)]; got != want {
			t.Errorf("the outcome %v is counted as %v, want %v", o, got, want)
		}
	}
}

// A worker can write any number into its counters. The supervisor uses only plausible numbers.
func TestAWorkersCountersAreLimited(t *testing.T) {
	t.Parallel()
	for c := range Counter(NumCounters) {
		if got := Plausible(c, 7, 0); got != 7 {
			t.Errorf("Plausible turns 7, a plausible value of counter %d, into %d", c,
				got)
		}
		for _, claim := range []uint64{math.MaxUint64, math.MaxInt64} {
			got := Plausible(c, claim, 365*24*time.Hour)
			if got >= claim {
				t.Errorf("counter %d: Plausible turns the claim %d into %d; want "+
					"less", c, claim, got)
			}
		}
	}
	// As a signed number, MaxUint64 is -1: a negative number of connections.
	if got := Plausible(Connections, math.MaxUint64, time.Hour); got != 0 {
		t.Errorf("Plausible turns a negative number of connections into %d, want 0", got)
	}
}
