package audit

import (
	"math"
	"strings"
	"testing"
	"time"
)

// A Limiter lets a burst of events pass, and then holds back events that come too fast. With the
// next event that passes, Take returns the number of the events that were held back. This number
// includes the parameter missed of Take: the events that the caller of Take has left out itself.
func TestLimiterCountsWhatItHoldsBack(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := NewLimiter(3, 2)
	take := func(missed, wantMissed uint64, wantOK bool) {
		t.Helper()
		if n, ok := l.Take(now, missed); n != wantMissed || ok != wantOK {
			t.Fatalf("Take returns %d, %v; want %d, %v", n, ok, wantMissed, wantOK)
		}
	}
	take(0, 0, true)
	take(0, 0, true)
	take(5, 5, true)
	take(0, 0, false)
	take(2, 0, false)
	if l.Idle(now) {
		t.Error("Idle is true although left-out events are not reported yet")
	}
	now = now.Add(500 * time.Millisecond)
	take(0, 4, true)
	take(0, 0, false)
	l.Miss(10)
	if n := l.Missed(); n != 11 {
		t.Errorf("Missed returns %d left-out events, want 11", n)
	}
	now = now.Add(time.Second)
	if l.Idle(now) {
		t.Error("Idle is true before the burst is available again")
	}
	now = now.Add(time.Hour) // makes the burst available again, and no more
	if !l.Idle(now) {
		t.Error("Idle is false an hour later")
	}
	take(0, 0, true)
	take(0, 0, true)
	take(0, 0, true)
	take(0, 0, false)
	now = now.Add(-time.Hour) // if the clock goes back, no event may pass
	take(0, 0, false)
}

// A report is a log line with the number of left-out events. Each report uses up a part of the
// limit, as an event does. But if the limit holds a report back, the report does not count as a
// left-out event.
func TestAReportIsNoEvent(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := NewLimiter(1, 1)
	if n, ok := l.TakeReport(now, 5); !ok || n != 5 {
		t.Errorf("the first report: %d, %v; want 5", n, ok)
	}
	if n, ok := l.TakeReport(now, 7); ok {
		t.Errorf("the limit of one lets the second report pass: %d", n)
	}
	if n, ok := l.Take(now.Add(time.Second), 0); !ok || n != 7 {
		t.Errorf("Take returns %d, %v; want 7 left-out events", n, ok)
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
		t.Error("the limit of one lets the third event pass")
	}
	if n, ok := l.Take(now.Add(time.Second), 7); !ok || n != math.MaxUint64 {
		t.Errorf("Take returns %d, %v; want the largest number", n, ok)
	}
}

// Clean escapes control characters and hidden characters, and cuts texts of more than 512 bytes.
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
