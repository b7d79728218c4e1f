// Package audit is what an administrator is told of the sessions: what was refused to them, and what they did that he
// always wants to know. Lines are made where it happens, in a worker, and written by the supervisor.
//
// Nobody can make more lines than a log can take: they pass a [Limiter] in the worker, and, since a
// worker is not to be trusted, one in the supervisor. What is left out is counted, and the count is written.
package audit

import (
	"math"
	"sync"
	"time"

	"tlsd/internal/plain"
)

// The names of events.
const (
	Denied             = "denied"
	InsecureSkipVerify = "insecure-skip-verify" // the verification of a certificate is turned off
)

// Event is one line. It has no payload, key or password.
type Event struct {
	Name   string `json:"name"`
	Method string `json:"method"`        // of the call
	Asked  string `json:"asked"`         // what the call was to do, for people
	Key    string `json:"key,omitempty"` // of the policy, which has refused it
}

// longest bounds a text of an event, in bytes.
const longest = 512

// Clean makes the event fit for a log, whoever made it: bounded, and without control characters.
func (e Event) Clean() Event {
	return Event{Name: clean(e.Name), Method: clean(e.Method), Asked: clean(e.Asked), Key: clean(e.Key)}
}

func clean(s string) string { return plain.Text(s, longest) }

// A Limiter lets so many events pass at once, and so many a second from then on. The others are
// counted. It is safe for concurrent use.
type Limiter struct {
	burst, rate float64

	mu     sync.Mutex // guards what follows
	tokens float64
	last   time.Time
	missed uint64
}

// NewLimiter makes a Limiter that has let nothing pass yet.
func NewLimiter(burst, perSecond int) *Limiter {
	return &Limiter{burst: float64(burst), rate: float64(perSecond), tokens: float64(burst)}
}

// Take asks for an event at the time now, before which others, missed in number, were left out already. If it may pass, the
// result is how many were left out since the last one that passed. Otherwise it is counted with them.
func (l *Limiter) Take(now time.Time, missed uint64) (before uint64, ok bool) {
	return l.TakeWeight(now, missed, 1)
}

// TakeWeight is Take for an event that counts as much as so many.
func (l *Limiter) TakeWeight(now time.Time, missed uint64, weight int) (before uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(missed)
	l.refill(now)
	if l.tokens < float64(weight) {
		l.add(1)
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

// add counts more events that were left out. A worker names any number: the count stops at its end, and does not begin anew.
// l.mu must be held.
func (l *Limiter) add(n uint64) {
	if l.missed += n; l.missed < n {
		l.missed = math.MaxUint64
	}
}

// Missed takes the count of those that were left out and have not been told of.
func (l *Limiter) Missed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.missed
	l.missed = 0
	return n
}

// Idle says whether the Limiter is as good as new, and can be forgotten.
func (l *Limiter) Idle(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refill(now)
	return l.tokens >= l.burst && l.missed == 0
}

// refill adds what the time since the last call has brought. l.mu must be held.
func (l *Limiter) refill(now time.Time) {
	if passed := now.Sub(l.last); !l.last.IsZero() && passed > 0 {
		l.tokens = min(l.burst, l.tokens+passed.Seconds()*l.rate)
	}
	l.last = now
}
