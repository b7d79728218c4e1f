package audit

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestLimiterCountsWhatItHoldsBack(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := NewLimiter(3, 2)
	take := func(missed, before uint64, ok bool) {
		t.Helper()
		if b, o := l.Take(now, missed); b != before || o != ok {
			t.Fatalf("%d, %v; want %d, %v", b, o, before, ok)
		}
	}
	take(0, 0, true)
	take(0, 0, true)
	take(5, 5, true)
	take(0, 0, false)
	take(2, 0, false)
	if l.Idle(now) {
		t.Error("a Limiter with an unreported count is idle")
	}
	now = now.Add(500 * time.Millisecond)
	take(0, 4, true)
	take(0, 0, false)
	l.Miss(10)
	if n := l.Missed(); n != 11 {
		t.Errorf("%d were left out, want 11", n)
	}
	now = now.Add(time.Second)
	if l.Idle(now) {
		t.Error("it has not recovered yet")
	}
	now = now.Add(time.Hour) // and no more than the burst
	if !l.Idle(now) {
		t.Error("it has recovered")
	}
	take(0, 0, true)
	take(0, 0, true)
	take(0, 0, true)
	take(0, 0, false)
	now = now.Add(-time.Hour) // a clock that goes back gives nothing
	take(0, 0, false)
}

// A line about left-out events takes the place of another line. It is no event.
func TestAReportIsNoEvent(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := NewLimiter(1, 1)
	if n, ok := l.TakeReport(now, 5); !ok || n != 5 {
		t.Errorf("the first report: %d, %v; want 5", n, ok)
	}
	if n, ok := l.TakeReport(now, 7); ok {
		t.Errorf("the limit does not hold for the second report: %d", n)
	}
	if n, ok := l.Take(now.Add(time.Second), 0); !ok || n != 7 {
		t.Errorf("%d, %v were left out; want 7", n, ok)
	}
}

// A worker may report any number of left-out events. The count does not overflow.
func TestTheCountOfLeftOutEventsDoesNotOverflow(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := NewLimiter(1, 1)
	l.Take(now, 0)
	l.Take(now, 0) // left out
	l.Miss(math.MaxUint64)
	if _, ok := l.Take(now, 5); ok {
		t.Error("the limit does not hold")
	}
	if n, ok := l.Take(now.Add(time.Second), 7); !ok || n != math.MaxUint64 {
		t.Errorf("%d, %v were left out; want the largest number", n, ok)
	}
}

func TestEventsAreFitForALog(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"example.com:443":              "example.com:443",
		"a\nb\x1b[31m":                 `a\nb\x1b[31m`,
		"bücher ✓":                     "bücher ✓",
		"\u202eevil\u2028":             `\u202eevil\u2028`,
		"\x00\x7f\u0085":               `\x00\x7f\u0085`,
		"a\xffb":                       "a\uFFFDb",
		strings.Repeat("x", 512):       strings.Repeat("x", 512),
		strings.Repeat("x", 513):       strings.Repeat("x", 512) + "…",
		strings.Repeat("x", 511) + "ü": strings.Repeat("x", 511) + "\uFFFD…",
	} {
		got := Event{Name: in, Method: in, Asked: in, Key: in}.Clean()
		if got != (Event{Name: want, Method: want, Asked: want, Key: want}) {
			t.Errorf("%q becomes %+v, want %q", in, got, want)
		}
	}
}
