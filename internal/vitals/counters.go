package vitals

import (
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
)

// The counters of a worker lie in its page, behind the threads, in 64-bit words. So nothing reports
// them: a worker adds to a word when it has done something, and the supervisor reads the words when
// somebody wants to know, and when the worker is dead, whatever it died of.
//
// Handles count up and down, all others up. [Plausible] bounds what a worker can claim.

// A Counter is a word of the page.
type Counter int

// The counters that stand alone. Those of handshakes follow: see Shaken and Took.
const (
	BytesIn     Counter = iota // from peers
	BytesOut                   // to peers
	Connections                // open handles
	Contexts                   // open handles
	ShakenFor                  // microseconds that handshakes have taken, all together
	Reloaded                   // renewed files that a server has taken
	NotReloaded                // renewed files that were not good
	firstBucket
)

// Buckets are the bounds of the times of handshakes, in seconds. A time counts in the first bucket
// that it fits in, or else in one more.
var Buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// An Outcome is how a handshake has ended.
type Outcome struct {
	Result  string // "ok", or the kind of the error
	Version string // of TLS, "" if it has failed
}

// Outcomes are all that are told apart. What is none of them is the last.
var Outcomes = []Outcome{
	{"ok", "TLSv1.3"}, {"ok", "TLSv1.2"}, {"ok", "other"},
	{"verify", ""}, {"handshake", ""}, {"timeout", ""}, {"cancelled", ""}, {"denied", ""},
	{"io", ""}, {"other", ""},
}

// NumCounters is how many counters there are.
var NumCounters = int(firstBucket) + len(Buckets) + 1 + 2*len(Outcomes)

// countersAt is where they begin in the page.
const countersAt = 8 * Threads

// Bucket counts handshakes that took so long: the i-th of Buckets, or len(Buckets).
func Bucket(i int) Counter { return firstBucket + Counter(i) }

// BucketOf is the bucket of a time.
func BucketOf(took time.Duration) Counter {
	i, _ := slices.BinarySearch(Buckets, took.Seconds())
	return Bucket(i)
}

// Shaken counts handshakes of a role with the i-th outcome.
func Shaken(server bool, i int) Counter {
	c := Bucket(len(Buckets)+1) + Counter(i)
	if server {
		c += Counter(len(Outcomes))
	}
	return c
}

// OutcomeOf is the index of an outcome.
func OutcomeOf(o Outcome) int {
	if i := slices.Index(Outcomes, o); i >= 0 {
		return i
	}
	if o.Result == "ok" {
		return slices.Index(Outcomes, Outcome{"ok", "other"})
	}
	return len(Outcomes) - 1
}

// Count adds n, which is below zero for what counts down.
func (p *Page) Count(c Counter, n int64) { p.counter(c).Add(uint64(n)) }

// Read is a counter as the worker has it. See Plausible.
func (p *Page) Read(c Counter) uint64 { return p.counter(c).Load() }

func (p *Page) counter(c Counter) *atomic.Uint64 { return p.long(countersAt + 8*int(c)) }

// certificate is a word of a certificate's place.
func (p *Page) certificate(place, word int) *atomic.Uint64 {
	return p.long(certificatesAt + certificateBytes*place + 8*word)
}

func (p *Page) long(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&p.mem[at]))
}

// What a worker can have done, at most.
const (
	mostBytes  = 4 << 30 // a second
	mostShaken = 100_000 // a second
	mostHeld   = 1 << 20 // handles
)

// Plausible bounds the value of a counter of a worker that has lived so long.
func Plausible(c Counter, value uint64, life time.Duration) uint64 {
	seconds := uint64(life/time.Second) + 1
	switch c {
	case BytesIn, BytesOut:
		return min(value, seconds*mostBytes)
	case Connections, Contexts:
		if int64(value) < 0 {
			return 0
		}
		return min(value, mostHeld)
	case ShakenFor: // each may take as long as the worker lives
		return min(value, seconds*1e6*1000)
	}
	return min(value, seconds*mostShaken)
}

// Falls says whether the counter counts down, too.
func (c Counter) Falls() bool { return c == Connections || c == Contexts }
