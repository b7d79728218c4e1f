package main

import (
	"math/big"
	"sync"
	"time"

	"tlsd/internal/vitals"
	"tlsd/session"
)

// meter is the session.Meter of a worker. It counts in the worker's page of package vitals.
type meter struct {
	page  *vitals.Page
	shown *certificateSlots
}

func (m meter) Moved(received, sent int) {
	m.page.Count(vitals.BytesIn, int64(received))
	m.page.Count(vitals.BytesOut, int64(sent))
}

func (m meter) Held(connections, contexts int) {
	m.page.Count(vitals.Connections, int64(connections))
	m.page.Count(vitals.Contexts, int64(contexts))
}

func (m meter) HandshakeDone(h session.Handshake) {
	outcome := vitals.Outcome{Result: "ok", Version: h.Version()}
	if h.Failure != nil {
		outcome = vitals.Outcome{Result: string(h.Failure.Kind)}
	}
	m.page.Count(vitals.Handshakes(h.Server, vitals.OutcomeOf(outcome)), 1)
	m.page.Count(vitals.BucketOf(h.Took), 1)
	m.page.Count(vitals.HandshakeTime, h.Took.Microseconds())
}

func (m meter) Reloaded(used bool) {
	if used {
		m.page.Count(vitals.Reloaded, 1)
	} else {
		m.page.Count(vitals.NotReloaded, 1)
	}
}

func (m meter) Shows(c session.Certificate, uses int) {
	m.shown.add(m.page, c.Serial, c.NotAfter, uses)
}

// certificateSlots has the certificates that the servers of a worker show. The page has a fixed
// number of slots, one for each certificate. If all are taken, a new certificate replaces the one
// that expires last, unless the new certificate expires at the same time or later.
type certificateSlots struct {
	mu    sync.Mutex // guards all below
	slots [vitals.Certificates]struct {
		serial   *big.Int
		notAfter time.Time
		uses     int // 0: the slot is empty
	}
}

// The method add counts the uses of a certificate. The parameter change is the number of new uses.
// If uses have ended, this number is negative.
func (s *certificateSlots) add(page *vitals.Page, serial *big.Int, notAfter time.Time,
	change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := -1
	for i := range s.slots {
		slot := &s.slots[i]
		if slot.uses > 0 && slot.serial.Cmp(serial) == 0 &&
			slot.notAfter.Equal(notAfter) {
			at = i
		}
	}
	switch {
	case at >= 0:
		if s.slots[at].uses += change; s.slots[at].uses <= 0 {
			s.slots[at].uses = 0
			page.HideCertificate(at)
		}
	case change > 0:
		if at = s.slotFor(notAfter); at >= 0 {
			slot := &s.slots[at]
			slot.serial, slot.notAfter, slot.uses = serial, notAfter, change
			page.ShowCertificate(at, serial, notAfter)
		}
	}
}

// slotFor is the slot for a new certificate, or -1 if there is none. The caller must hold s.mu.
func (s *certificateSlots) slotFor(notAfter time.Time) int {
	last := -1
	for i, slot := range s.slots {
		if slot.uses == 0 {
			return i
		}
		if slot.notAfter.After(notAfter) {
			notAfter, last = slot.notAfter, i
		}
	}
	return last
}
