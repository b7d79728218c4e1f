package supervisor

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/audit"
	"tlsd/internal/handoff"
	"tlsd/internal/testkit"
	"tlsd/internal/vitals"
)

// values returns the values of all samples. A key is the name of a metric and the values of its
// labels, such as "tlsd_handles connection".
func (d *daemon) values() map[string]float64 {
	values := map[string]float64{}
	for _, f := range d.Metrics() {
		for _, s := range f.Samples {
			name := []string{f.Name}
			for _, label := range []string{"direction", "kind", "role", "result",
				"version", "reason", "state", "cause", "key", "measure"} {
				if v := s.Labels[label]; v != "" {
					name = append(name, v)
				}
			}
			values[strings.Join(name, " ")] = s.Value
			if f.Type == "histogram" {
				values[f.Name+" count"] = float64(s.Count)
				for i, bound := range s.Bounds {
					bucket := fmt.Sprintf("%s %v", f.Name, bound)
					values[bucket] = float64(s.Counts[i])
				}
			}
		}
	}
	return values
}

// has checks that the metrics have the values in want. It ignores all other metrics.
func (d *daemon) has(want map[string]float64) {
	d.t.Helper()
	got := d.values()
	for name, v := range want {
		if value, ok := got[name]; !ok || value != v {
			d.t.Errorf("the metric %s is %v (it exists: %t), want %v", name, value, ok,
				v)
		}
	}
}

// The metrics are sums of the counters of all workers. The counters of a worker that has ended
// still count, however it has ended. But its open handles no longer count.
func TestCountersSurviveTheirWorker(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	a, b := d.dial(), d.dial()
	a.ask("count")
	b.ask("count")
	b.ask("count")
	d.has(map[string]float64{"tlsd_bytes_total in": 15, "tlsd_handles connection": 6,
		"tlsd_sessions": 2})
	b.ask("count down") // bytes cannot decrease, open handles can
	d.has(map[string]float64{"tlsd_bytes_total in": 15, "tlsd_handles connection": 2})
	testkit.Must(t, unix.Kill(a.pid(), unix.SIGKILL))
	d.logged("session lost", 1)
	b.say("bye")
	d.logged("session ended", 1)
	d.until("both workers are gone", func() bool { return d.countWorkers() == 1 })
	d.countsStarts(2)
	d.has(map[string]float64{
		"tlsd_bytes_total in": 15, "tlsd_bytes_total out": 0, "tlsd_handles connection": 0,
		"tlsd_sessions": 0,
		"tlsd_handshakes_total server ok TLSv1.3": 3,
		"tlsd_handshakes_total client ok TLSv1.3": 0,
		"tlsd_handshake_seconds":                  0.06, "tlsd_handshake_seconds count": 3,
		"tlsd_handshake_seconds 0.01": 0, "tlsd_handshake_seconds 0.025": 3,
		"tlsd_sessions_ended_total lost": 1, "tlsd_sessions_ended_total caller": 1,
		"tlsd_sessions_ended_total error": 0,
		"tlsd_worker_deaths_total killed": 1, "tlsd_worker_deaths_total signal": 0,
		"tlsd_session_start_seconds 30": 2,
	})
}

// countsStarts waits until n starts of sessions are counted. A start is counted after the worker
// has the session, so the caller may already have an answer of the worker.
func (d *daemon) countsStarts(n float64) {
	d.t.Helper()
	d.until(fmt.Sprintf("%v starts of sessions are counted", n), func() bool {
		return d.values()["tlsd_session_start_seconds count"] == n
	})
}

// A worker that was taken over can write any numbers into its counters. Even then the sums of the
// metrics never decrease, and never exceed math.MaxInt64. After the worker's end its handles no
// longer count.
func TestAWorkerThatLiesHarmsNoSum(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	good := d.dial()
	good.ask("count")
	var last float64
	for range 3 {
		c := d.dial()
		c.ask("lie")
		pid := c.pid()
		d.until("the bytes that the worker has made up are counted",
			func() bool { return d.values()["tlsd_bytes_total in"] > last })
		last = d.values()["tlsd_bytes_total in"]
		c.say("bye")
		d.until("the worker that has made up bytes is gone",
			func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
		if now := d.values()["tlsd_bytes_total in"]; now < last || now > math.MaxInt64 {
			t.Errorf("a lying worker has ended, and the bytes go from %v to %v; "+
				"want at least the old sum, and at most %v", last, now,
				float64(math.MaxInt64))
		}
	}
	d.until("only the good worker's handles count",
		func() bool { return d.values()["tlsd_handles connection"] == 2 })
	if got := plus(math.MaxUint64-1, 5); got != math.MaxUint64 {
		t.Errorf("a sum that overflows is %d, want the largest number", got)
	}
}

// Refusals, ends of sessions, deaths of workers, audit events and confinement appear in the
// metrics. Names that a worker has made up do not.
func TestWhatHappensIsCounted(t *testing.T) {
	t.Parallel()
	said := handoff.Ready{Backend: "openssl", Version: "V",
		Confinement: map[string]string{"seccomp": "on", "landlock": "too old",
			"made up": "on"}}
	d := startDaemon(t, workerPlay{Report: said}, func(c *Config) { c.MaxSessions = 2 })
	a := d.dial()
	a.pid()
	b := d.dial()
	b.pid()
	d.dial().hear() // is refused
	testkit.Must(t, d.End(t.Context(), 1, "so"))
	b.say("crash")
	b.told("died of a panic")
	c := d.dial()
	c.say("nonsense")
	c.told("was killed because it broke the rules of its channel to tlsd")
	d.logged("worker ended unexpectedly", 2)
	me := Peer{UID: uint32(os.Getuid())}
	d.writeAudit(me, 0, &audit.Event{Name: audit.Denied, Method: "tls.NewClient",
		Key: "destinations"}, 2)
	// Of one message, at most 1<<20 missed events are counted.
	d.writeAudit(me, 0, &audit.Event{Name: audit.Denied, Key: "made up"}, math.MaxUint64)
	d.has(map[string]float64{
		"tlsd_sessions_refused_total limit": 1, "tlsd_sessions_refused_total denied": 0,
		"tlsd_sessions_ended_total administrator": 1, "tlsd_sessions_ended_total lost": 2,
		"tlsd_worker_deaths_total panic": 1, "tlsd_worker_deaths_total rules": 1,
		"tlsd_sessions_max":              2,
		"tlsd_denied_total destinations": 1, "tlsd_denied_total other": 1,
		"tlsd_audit_missed_total":  2 + 1<<20,
		"tlsd_confinement seccomp": 1, "tlsd_confinement landlock": 0,
		"tlsd_workers serving": 0,
	})
	got := d.values()
	if _, ok := got["tlsd_confinement made up"]; ok {
		t.Error("the metrics show a measure that a worker has made up")
	}
	if got["tlsd_descriptors"] < 3 || got["tlsd_descriptors_max"] < got["tlsd_descriptors"] ||
		got["tlsd_start_time_seconds"] == 0 {
		t.Errorf("the descriptors, their maximum or the start time are wrong: %v", got)
	}
}

// A caller that has hung up before tlsd accepts its connection gets no session, and counts as
// refused with the reason "left".
func TestACallerThatLeavesBeforeItIsAcceptedIsCounted(t *testing.T) {
	t.Parallel()
	const callers = 3
	d := startDaemon(t, workerPlay{}, func(c *Config) { // the daemon does not accept yet
		for range callers {
			testkit.Must(t, dial(t, c.Socket.Path).Close())
		}
	})
	d.dial().pid() // it comes after the others, so they are accepted
	d.has(map[string]float64{"tlsd_sessions_refused_total left": callers,
		"tlsd_sessions_refused_total no_worker": 0, "tlsd_sessions": 1})
}

// If the kernel does not say which user a caller is, the caller gets no session, and the refusal
// counts as a fault. Here the kernel does not say it, because the supervisor has closed its end of
// the connection.
func TestACallerThatCannotBeKnownIsCounted(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	conn, _ := testkit.UnixPair(t)
	testkit.Must(t, conn.Close())
	if sess := d.sessionFor(conn); sess != nil {
		t.Errorf("an unknown caller has got session %d", sess.number)
	}
	d.has(map[string]float64{"tlsd_sessions_refused_total fault": 1,
		"tlsd_sessions_refused_total denied": 0, "tlsd_sessions": 0})
}

// No label names a user, a process, a peer or a session, so the number of samples is limited. The
// name of a counter ends with _total, and no other name does. Each metric has a help text.
func TestLabelsAreFew(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	d.dial().ask("count")
	samples := 0
	for _, f := range d.Metrics() {
		samples += len(f.Samples)
		if (f.Type == "counter") != strings.HasSuffix(f.Name, "_total") ||
			!slices.Contains([]string{"counter", "gauge", "histogram"}, f.Type) ||
			f.Help == "" {
			t.Errorf("the name, type or help is wrong: %s is a %s: %s", f.Name,
				f.Type, f.Help)
		}
		for _, s := range f.Samples {
			for label := range s.Labels {
				if slices.Contains([]string{"uid", "user", "pid", "host", "peer",
					"worker", "session"}, label) {
					t.Errorf("%s has the forbidden label %s", f.Name, label)
				}
			}
		}
	}
	if most := 60 + vitals.NumCounters; samples > most {
		t.Errorf("there are %d samples, more than %d", samples, most)
	}
}
