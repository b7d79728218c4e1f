package main

import (
	"tlsd/internal/vitals"
	"tlsd/session"
)

// meter counts what a worker's sessions do, in the worker's page of vitals.
type meter struct{ page *vitals.Page }

func (m meter) Moved(received, sent int) {
	m.page.Count(vitals.BytesIn, int64(received))
	m.page.Count(vitals.BytesOut, int64(sent))
}

func (m meter) Held(connections, contexts int) {
	m.page.Count(vitals.Connections, int64(connections))
	m.page.Count(vitals.Contexts, int64(contexts))
}

func (m meter) Shaken(s session.Handshake) {
	outcome := vitals.Outcome{Result: "ok", Version: s.Version()}
	if s.Failure != nil {
		outcome = vitals.Outcome{Result: string(s.Failure.Kind)}
	}
	m.page.Count(vitals.Shaken(s.Server, vitals.OutcomeOf(outcome)), 1)
	m.page.Count(vitals.BucketOf(s.Took), 1)
	m.page.Count(vitals.ShakenFor, s.Took.Microseconds())
}
