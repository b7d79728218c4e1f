package supervisor

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"tlsd/internal/admin"
	"tlsd/internal/confine"
	"tlsd/internal/vitals"
)

// Metrics returns the metrics for a monitor. No value of a label is a user, a process or a host. A
// label has a fixed list of values, and each value has a sample from the start. So a monitor can
// compute a rate from the first event on. There are two exceptions. The label serial has no list
// (expiry.go). A value of the label measure has a sample only if a worker has reported the measure.
func (s *Supervisor) Metrics() []admin.Family {
	open := openFiles()
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // cannot fail with these arguments

	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tally
	now := slices.Clone(t.past)
	for w := range s.workers {
		now.add(w.claim())
	}
	count := func(c vitals.Counter) float64 { return float64(now[c]) }
	families := []admin.Family{
		gauge("tlsd_start_time_seconds", "When tlsd was started, in Unix time.",
			float64(s.started.UnixMilli())/1000),
		gauge("tlsd_sessions", "Sessions now.", float64(s.sessions)),
		gauge("tlsd_sessions_max", "Sessions that are allowed at the same time.",
			float64(s.MaxSessions)),
		byLabel("tlsd_sessions_ended_total",
			"Sessions that have ended, by the cause of the end.", "counter", "result",
			endings, t.ended),
		byLabel("tlsd_sessions_refused_total",
			"Callers that got no session, by the reason.", "counter", "reason",
			refusals, t.refused),
		histogram("tlsd_session_start_seconds",
			"The time from a caller's connection until a worker has its session.",
			startBuckets, t.starts, t.startSum),
		byLabel("tlsd_workers", "Worker processes now, by their state.", "gauge", "state",
			workerStates, s.states()),
		byLabel("tlsd_worker_deaths_total",
			"Workers that did not end in good order, by the cause.", "counter", "cause",
			deaths, t.deaths),
		{Name: "tlsd_handles", Help: "Open handles now.", Type: "gauge",
			Samples: []admin.Sample{
				{Labels: map[string]string{"kind": "connection"},
					Value: count(vitals.Connections)},
				{Labels: map[string]string{"kind": "context"},
					Value: count(vitals.Contexts)},
			}},
		handshakes(count),
		histogram("tlsd_handshake_seconds",
			"The duration of handshakes, failed handshakes included.",
			vitals.Buckets,
			now[vitals.Bucket(0):vitals.Bucket(len(vitals.Buckets)+1)],
			count(vitals.HandshakeTime)/1e6),
		{Name: "tlsd_bytes_total",
			Help: "Bytes that connections got from peers (in) and sent to peers (out).",
			Type: "counter",
			Samples: []admin.Sample{
				{Labels: map[string]string{"direction": "in"},
					Value: count(vitals.BytesIn)},
				{Labels: map[string]string{"direction": "out"},
					Value: count(vitals.BytesOut)},
			}},
		{Name: "tlsd_certificate_reloads_total",
			Help: "How often renewed files of a server were loaded, or were refused.",
			Type: "counter",
			Samples: []admin.Sample{
				{Labels: map[string]string{"result": "ok"},
					Value: count(vitals.Reloaded)},
				{Labels: map[string]string{"result": "failed"},
					Value: count(vitals.NotReloaded)},
			}},
		s.expiry(),
		byLabel("tlsd_denied_total",
			"Denied calls, by the policy's key. The key connect counts denied callers.",
			"counter", "key", deniedKeys, t.denied),
		counter("tlsd_audit_missed_total",
			"Audit events that were dropped.",
			float64(plus(t.auditMissed, uint64(s.AuditLost())))),
		gauge("tlsd_descriptors", "Descriptors that the supervisor has open.",
			float64(open)),
		gauge("tlsd_descriptors_max", "The supervisor's limit of descriptors.",
			float64(limit.Cur)),
	}
	return append(families, s.confinementFamily())
}

// measures lists the measures that a worker may report (see package confine).
var measures = []string{
	"capabilities", "dieFirst", "landlock", "landlockTruncate", "noCoreFiles",
	"noNewPrivileges", "notTraceable", "seccomp",
}

// confinementFamily has a sample for each measure that workers report. The sample is 1 if the
// measure is in force, and otherwise 0. The caller holds s.mu.
func (s *Supervisor) confinementFamily() admin.Family {
	f := admin.Family{Name: "tlsd_confinement",
		Help: "1 for each measure that is in force in workers, 0 for any other.",
		Type: "gauge"}
	for _, measure := range measures {
		state, there := s.confinement[measure]
		if !there {
			continue
		}
		on := 0.0
		if state == confine.On {
			on = 1
		}
		f.Samples = append(f.Samples,
			admin.Sample{Labels: map[string]string{"measure": measure}, Value: on})
	}
	return f
}

func handshakes(count func(vitals.Counter) float64) admin.Family {
	f := admin.Family{Name: "tlsd_handshakes_total",
		Help: "Handshakes, by this side's role, the result, and the version of TLS.",
		Type: "counter"}
	for _, role := range []string{"client", "server"} {
		for i, o := range vitals.Outcomes {
			f.Samples = append(f.Samples, admin.Sample{
				Labels: map[string]string{"role": role, "result": o.Result,
					"version": o.Version},
				Value: count(vitals.Handshakes(role == "server", i)),
			})
		}
	}
	return f
}

func gauge(name, help string, value float64) admin.Family {
	return admin.Family{Name: name, Help: help, Type: "gauge",
		Samples: []admin.Sample{{Value: value}}}
}

func counter(name, help string, value float64) admin.Family {
	return admin.Family{Name: name, Help: help, Type: "counter",
		Samples: []admin.Sample{{Value: value}}}
}

// byLabel makes a family with a sample for each value of a label. If counts has no entry for a
// value, the sample is 0.
func byLabel[N int | uint64](name, help, typ, label string, values []string,
	counts map[string]N) admin.Family {
	f := admin.Family{Name: name, Help: help, Type: typ}
	for _, v := range values {
		f.Samples = append(f.Samples,
			admin.Sample{Labels: map[string]string{label: v},
				Value: float64(counts[v])})
	}
	return f
}

// histogram makes a histogram. In counts there is one element for each bound, and a last element
// for larger values.
func histogram(name, help string, bounds []float64, counts []uint64, sum float64) admin.Family {
	sample := admin.Sample{Value: sum, Bounds: bounds}
	for i, n := range counts {
		sample.Count = plus(sample.Count, n)
		if i < len(bounds) {
			sample.Counts = append(sample.Counts, sample.Count)
		}
	}
	return admin.Family{Name: name, Help: help, Type: "histogram",
		Samples: []admin.Sample{sample}}
}

// openFiles counts the descriptors of this process. It returns 0 on a system without /proc/self/fd.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries) - 1 // ReadDir has the folder itself open
}
