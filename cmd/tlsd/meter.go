package main

import (
	"math/big"
	"sync"
	"time"

	"tlsd/internal/vitals"
	"tlsd/session"
)

// meter counts what a worker's sessions do, in the worker's page of vitals.
type meter struct {
	page  *vitals.Page
	shelf *shelf
}

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

func (m meter) Reloaded(used bool) {
	if used {
		m.page.Count(vitals.Reloaded, 1)
	} else {
		m.page.Count(vitals.NotReloaded, 1)
	}
}

func (m meter) Shows(c session.Certificate, uses int) {
	m.shelf.show(m.page, c.Serial, c.NotAfter, uses)
}

// A shelf knows which certificates the servers of a worker show. It has as many places as the page
// of vitals. If all are taken, a certificate that ends later makes room for one that ends sooner,
// and is forgotten.
type shelf struct {
	mu     sync.Mutex // guards all below
	places [vitals.Certificates]struct {
		serial   *big.Int
		notAfter time.Time
		uses     int // 0: the place is empty
	}
}

// show adds uses of a certificate, or, below zero, takes them away.
func (s *shelf) show(page *vitals.Page, serial *big.Int, notAfter time.Time, uses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := -1
	for i := range s.places {
		p := &s.places[i]
		if p.uses > 0 && p.serial.Cmp(serial) == 0 && p.notAfter.Equal(notAfter) {
			at = i
		}
	}
	switch {
	case at >= 0:
		if s.places[at].uses += uses; s.places[at].uses <= 0 {
			s.places[at].uses = 0
			page.HideCertificate(at)
		}
	case uses > 0:
		if at = s.free(notAfter); at >= 0 {
			p := &s.places[at]
			p.serial, p.notAfter, p.uses = serial, notAfter, uses
			page.ShowCertificate(at, serial, notAfter)
		}
	}
}

// free is a place for a certificate, or -1. s.mu must be held.
func (s *shelf) free(notAfter time.Time) int {
	last := -1
	for i, p := range s.places {
		if p.uses == 0 {
			return i
		}
		if p.notAfter.After(notAfter) {
			notAfter, last = p.notAfter, i
		}
	}
	return last
}
