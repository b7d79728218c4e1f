package supervisor

import (
	"math"
	"slices"
	"strings"
	"time"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
	"tlsd/internal/policy"
	"tlsd/internal/vitals"
)

// This file counts events for the metrics, from the daemon's start on. The rules:
//
//   - A living worker has its counters in its page of vitals, which is read when a monitor asks.
//     When the worker ends, the tally adds the final values of the worker's counters to its own.
//   - A worker's counters are limited to plausible values for its lifetime (see package vitals).
//     Only the counters of open handles can fall. Sums do not overflow. So a hostile worker can
//     only make its own counters wrong.
//   - The values of labels are in lists. If a denied call has a key that is not in deniedKeys, the
//     call counts as "other".

// The values of the label reason: why a caller got no session.
const (
	refusedDenied   = "denied"
	refusedLimit    = "limit"
	refusedLeft     = "left" // the caller has hung up before its session began
	refusedNoWorker = "no_worker"
	refusedFault    = "fault"
	refusedNotTaken = "descriptors" // the worker had no descriptor free for the connection
)

// The values of the label result: how a session has ended.
const (
	endedWell    = "caller" // by its caller
	endedError   = "error"
	endedOrdered = "administrator"
	endedLost    = "lost" // with its worker
)

// The values of the label cause: why a worker has died. A worker that ends in good order has no
// cause.
const (
	bySignal        = "signal"
	byPanic         = "panic"
	byMemory        = "memory"
	byKill          = "killed" // by another process, the kernel, or tlsd's own stop
	byExit          = "exit"
	byWatchdog      = "watchdog"
	byStart         = "start" // the worker could not serve, or was not ready in time
	byRules         = "rules" // the worker broke the rules of its channel
	byAdministrator = "administrator"
)

const otherKey = "other"

var (
	refusals = []string{refusedDenied, refusedLimit, refusedLeft, refusedNoWorker,
		refusedFault, refusedNotTaken}
	endings = []string{endedWell, endedError, endedOrdered, endedLost}
	deaths  = []string{bySignal, byPanic, byMemory, byKill, byExit, byWatchdog, byStart,
		byRules, byAdministrator}
	deniedKeys = []string{
		"connect", policy.KeySkipVerify, policy.KeyMinTLS, policy.KeyListen,
		policy.KeyDestinations, policy.KeyKeyFolders, policy.KeyCAFolders, otherKey,
	}
)

// startBuckets are the bounds of the histogram of start times, in seconds.
var startBuckets = []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// claims are the counters that a worker claims, limited to plausible values. A counter that cannot
// fall has the highest value that was read.
type claims []uint64

// tally has the counters. Supervisor.mu guards it.
type tally struct {
	refused, ended, deaths, denied map[string]uint64 // by the values in the lists above
	auditMissed                    uint64

	starts   []uint64 // session starts, by startBuckets; the last element is for longer times
	startSum float64  // the time of all starts together, in seconds

	past claims // sums of the counters of workers that are gone
}

func newTally() tally {
	return tally{
		refused: map[string]uint64{}, ended: map[string]uint64{},
		deaths: map[string]uint64{}, denied: map[string]uint64{},
		starts: make([]uint64, len(startBuckets)+1),
		past:   make(claims, vitals.NumCounters),
	}
}

// claim reads the counters of a worker from its page, which must be open. The caller holds s.mu.
func (w *worker) claim() claims {
	if w.claimed == nil {
		w.claimed = make(claims, vitals.NumCounters)
	}
	life := time.Since(w.started)
	for c := range vitals.Counter(len(w.claimed)) {
		value := vitals.Plausible(c, w.page.Read(c), life)
		if c.Falls() {
			w.claimed[c] = value
		} else {
			w.claimed[c] = max(w.claimed[c], value)
		}
	}
	return w.claimed
}

// add adds the counters w to the sums c.
func (c claims) add(w claims) {
	for i := range c {
		c[i] = plus(c[i], w[i])
	}
}

// plus adds two numbers. Instead of an overflow, the result is the largest number.
func plus(a, b uint64) uint64 {
	if b > math.MaxUint64-a {
		return math.MaxUint64
	}
	return a + b
}

// fold adds the counters of a worker that is gone to t.past. It leaves out the counters of open
// handles, because the worker's handles are gone, too.
func (t *tally) fold(w *worker) {
	final := w.claim()
	for c := range vitals.Counter(len(final)) {
		if !c.Falls() {
			t.past[c] = plus(t.past[c], final[c])
		}
	}
}

// countRefusal counts a caller that gets no session.
func (s *Supervisor) countRefusal(reason string) {
	s.mu.Lock()
	s.tally.refused[reason]++
	s.mu.Unlock()
}

// countStart counts a session that was sent to a worker, and the time since the caller connected.
func (s *Supervisor) countStart(sess *session) {
	took := time.Since(sess.start).Seconds()
	i, _ := slices.BinarySearch(startBuckets, took)
	s.mu.Lock()
	s.tally.starts[i]++
	s.tally.startSum += took
	s.mu.Unlock()
}

// countEnd counts a session whose end the worker has reported. A session that the worker could not
// take counts as refused.
func (s *Supervisor) countEnd(sess *session, e *handoff.Ended) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.NotTaken:
		s.tally.refused[refusedNotTaken]++
	case sess.ordered:
		s.tally.ended[endedOrdered]++
	case e.Error != "":
		s.tally.ended[endedError]++
	default:
		s.tally.ended[endedWell]++
	}
}

// countAudit counts the missed events: those that were dropped before the event e. If e is a denied
// call, countAudit counts e, too.
func (s *Supervisor) countAudit(e *audit.Event, missed uint64) {
	const most = 1 << 20 // the most for one message: a hostile worker may claim any number
	s.auditMissed(min(missed, most))
	if e == nil || e.Name != audit.Denied {
		return
	}
	key := e.Key
	if e.Method == "connect" {
		key = e.Method
	}
	if !slices.Contains(deniedKeys, key) {
		key = otherKey
	}
	s.mu.Lock()
	s.tally.denied[key]++
	s.mu.Unlock()
}

func (s *Supervisor) auditMissed(n uint64) {
	s.mu.Lock()
	s.tally.auditMissed = plus(s.tally.auditMissed, n)
	s.mu.Unlock()
}

// deathOf is the cause of a worker's death, as a label. The caller holds s.mu.
func deathOf(w *worker, cause string) string {
	switch {
	case w.deathCause != "":
		return w.deathCause
	case strings.Contains(cause, "memory"):
		return byMemory
	case strings.Contains(cause, "panic") || strings.Contains(cause, "fatal error"):
		return byPanic
	case strings.HasPrefix(cause, "died of"):
		return bySignal
	case strings.HasPrefix(cause, "was killed"), strings.HasPrefix(cause, "has been ended"):
		return byKill
	}
	return byExit
}
