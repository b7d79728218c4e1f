package vitals

import (
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
)

// The counters of a worker are 64-bit words of its page. They come after the words that say what
// each thread does (vitals.go). The worker sends no messages about them. A worker adds to a word
// when it has something to count. The supervisor reads the words when a monitor asks, and after the
// worker's death.
//
// The counters of handles go up and down, and all others only up. [Plausible] limits the values
// that a worker can claim.

// A Counter is the number of a counter in the page.
type Counter int

// The single counters. The counters of handshakes follow them: see Bucket and Handshakes.
const (
	BytesIn       Counter = iota // from peers
	BytesOut                     // to peers
	Connections                  // open handles
	Contexts                     // open handles
	HandshakeTime                // microseconds that handshakes have taken, all together
	Reloaded                     // how often a server has loaded renewed files
	NotReloaded                  // how often renewed files were refused
	firstBucket
)

// Buckets are the upper bounds of the handshake times, in seconds. A time counts in the first
// bucket that is large enough. One more bucket is for longer times.
var Buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// An Outcome is the result of a handshake.
type Outcome struct {
	Result  string // "ok", or the kind of the error
	Version string // of TLS, or "" if the handshake has failed
}

// Outcomes lists the outcomes that have counters. Any other success counts as {"ok", "other"}, any
// other failure as {"other", ""}.
var Outcomes = []Outcome{
	{"ok", "TLSv1.3"}, {"ok", "TLSv1.2"}, {"ok", "other"},
	{"verify", ""}, {"handshake", ""}, {"timeout", ""}, {"cancelled", ""}, {"denied", ""},
	{"io", ""}, {"other", ""},
}

// NumCounters is the number of counters.
var NumCounters = int(firstBucket) + len(Buckets) + 1 + 2*len(Outcomes)

// countersAt is the offset of the counters in the page, in bytes.
const countersAt = 8 * Threads

// Bucket is the counter of the i-th of Buckets. For i = len(Buckets), it is the counter of longer
// times.
func Bucket(i int) Counter { return firstBucket + Counter(i) }

// BucketOf is the bucket of a time.
func BucketOf(took time.Duration) Counter {
	i, _ := slices.BinarySearch(Buckets, took.Seconds())
	return Bucket(i)
}

// Handshakes is the counter of the handshakes whose outcome is Outcomes[i]. There is one counter
// for handshakes as a server, and another for handshakes as a client.
func Handshakes(server bool, i int) Counter {
	c := Bucket(len(Buckets)+1) + Counter(i)
	if server {
		c += Counter(len(Outcomes))
	}
	return c
}

// OutcomeOf is the index of the entry of Outcomes that counts o.
func OutcomeOf(o Outcome) int {
	if i := slices.Index(Outcomes, o); i >= 0 {
		return i
	}
	if o.Result == "ok" {
		return slices.Index(Outcomes, Outcome{"ok", "other"})
	}
	return len(Outcomes) - 1
}

// Count adds n to a counter. A negative n is allowed only for a counter that can go down (Falls).
func (p *Page) Count(c Counter, n int64) { p.counter(c).Add(uint64(n)) }

// Read is the value that the worker claims. See Plausible.
func (p *Page) Read(c Counter) uint64 { return p.counter(c).Load() }

func (p *Page) counter(c Counter) *atomic.Uint64 { return p.long(countersAt + 8*int(c)) }

// certificate is a word of a certificate's slot.
func (p *Page) certificate(slot, word int) *atomic.Uint64 {
	return p.long(certificatesAt + certificateBytes*slot + 8*word)
}

func (p *Page) long(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&p.mem[at]))
}

// The highest plausible values.
const (
	maxBytes      = 4 << 30 // per second
	maxHandshakes = 100_000 // per second
	maxHandles    = 1 << 20 // handles
)

// Plausible limits the value of a counter to a plausible one for the worker's lifetime.
func Plausible(c Counter, value uint64, life time.Duration) uint64 {
	seconds := uint64(life/time.Second) + 1
	switch c {
	case BytesIn, BytesOut:
		return min(value, seconds*maxBytes)
	case Connections, Contexts:
		if int64(value) < 0 {
			return 0
		}
		return min(value, maxHandles)
	case HandshakeTime: // 1,000 handshakes at the same time, for the whole life
		return min(value, seconds*1e6*1000)
	}
	return min(value, seconds*maxHandshakes)
}

// Falls says whether the counter can go down.
func (c Counter) Falls() bool { return c == Connections || c == Contexts }
