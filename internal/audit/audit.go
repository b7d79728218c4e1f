// Package audit has the audit lines. An audit line tells the administrator that a call was refused,
// or that a script has turned the verification of certificates off. The script's worker makes the
// line, and the supervisor writes it to the log. If a caller may not connect, there is no worker,
// and the supervisor makes the line itself. Lines about the orders of administrators are made in
// cmd/tlsd.
//
// The number of lines is limited, so that no session can flood the log. A [Limiter] in the worker
// enforces the limit. A second Limiter in the supervisor enforces it again, because a worker is not
// trusted. The log gets the number of the lines that were left out.
package audit

import (
	"math"
	"sync"
	"time"

	"tlsd/internal/plain"
)

// The names of events.
const (
	Denied = "denied"
	// InsecureSkipVerify: a script turns the verification of certificates off.
	InsecureSkipVerify = "insecure-skip-verify"
)

// Event is one line. It has no payload, private key or password.
type Event struct {
	Name   string `json:"name"`
	Method string `json:"method"`        // of the call
	Asked  string `json:"asked"`         // what the call was to do, for people
	Key    string `json:"key,omitempty"` // which key of the policy forbids the call
}

// longest limits the length of each text of an event, in bytes.
const longest = 512

// Clean limits the texts of the event, and makes control characters in them visible.
func (e Event) Clean() Event {
	return Event{Name: clean(e.Name), Method: clean(e.Method), Asked: clean(e.Asked),
		Key: clean(e.Key)}
}

func clean(s string) string { return plain.Text(s, longest) }

// A Limiter limits events: a burst may pass at once, and after the burst a fixed number in each
// second. It counts the events that may not pass. A Limiter is safe for concurrent use.
type Limiter struct {
	burst, rate float64

	mu     sync.Mutex // guards all below
	tokens float64
	last   time.Time
	missed uint64
}

// NewLimiter makes a Limiter. The parameter burst is the number of events that may pass at once.
// The parameter perSecond is the number that may pass in each second afterwards.
func NewLimiter(burst, perSecond int) *Limiter {
	return &Limiter{burst: float64(burst), rate: float64(perSecond), tokens: float64(burst)}
}

// Take decides whether an event may pass. missed is the number of earlier events that the caller
// itself has left out. If the event may pass, Take returns true, and the number of events that were
// left out since the previous event that passed. Otherwise the event counts as left out.
func (l *Limiter) Take(now time.Time, missed uint64) (before uint64, ok bool) {
	return l.TakeWeight(now, missed, 1)
}

// TakeWeight is Take for a large event, which needs several tokens. The parameter weight is their
// number. If the event may not pass, one event counts as left out.
func (l *Limiter) TakeWeight(now time.Time, missed uint64, weight int) (before uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(missed)
	if before, ok = l.take(now, weight); !ok {
		l.add(1)
	}
	return before, ok
}

// TakeReport is Take for a line that only has the number of left-out events. If the line may not
// pass, it does not count as left out, because it is no event.
func (l *Limiter) TakeReport(now time.Time, missed uint64) (before uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(missed)
	return l.take(now, 1)
}

// take does the work of TakeWeight, but does not count an event that may not pass. l.mu must be
// held.
func (l *Limiter) take(now time.Time, weight int) (before uint64, ok bool) {
	l.refill(now)
	if l.tokens < float64(weight) {
		return 0, false
	}
	l.tokens -= float64(weight)
	before, l.missed = l.missed, 0
	return before, true
}

// Miss counts events that were left out for another reason.
func (l *Limiter) Miss(n uint64) {
	l.mu.Lock()
	l.add(n)
	l.mu.Unlock()
}

// The method add counts more events that were left out. A worker may report any number, so the sum
// may be too large for a uint64. Then the count becomes the largest uint64. l.mu must be held.
func (l *Limiter) add(n uint64) {
	if l.missed += n; l.missed < n {
		l.missed = math.MaxUint64
	}
}

// Missed returns the number of events that were left out and not yet reported, and resets it.
func (l *Limiter) Missed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.missed
	l.missed = 0
	return n
}

// Idle says whether the Limiter is in the state of a new Limiter, so that it can be dropped.
func (l *Limiter) Idle(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refill(now)
	return l.tokens >= l.burst && l.missed == 0
}

// refill adds the tokens for the time since the last refill. An event of weight 1 takes one token.
// l.mu must be held.
func (l *Limiter) refill(now time.Time) {
	if passed := now.Sub(l.last); !l.last.IsZero() && passed > 0 {
		l.tokens = min(l.burst, l.tokens+passed.Seconds()*l.rate)
	}
	l.last = now
}
