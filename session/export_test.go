package session

import (
	"net"
	"time"
)

// MostFinishing is the number of closes that may run in the background.
const MostFinishing = maxFinishing

// SetStallTimeout sets how long Close, CloseServerContext and LastError wait for earlier calls
// while none of these ends. It must be called before the first call.
func (s *Session) SetStallTimeout(d time.Duration) { s.stallTimeout = d }

// SetReasonTimeout sets how long a failed send waits for an alert of the peer. It must be called
// before the first call.
func (s *Session) SetReasonTimeout(d time.Duration) { s.reasonTimeout = d }

// TrustDepth counts trust stores: the current one, its fallback, the fallback of that store, and so
// on. If a trust store could not be loaded, its fallback is used in its place.
func (s *Session) TrustDepth() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 1
	for t := s.trust; t.fallback != nil; t = t.fallback {
		n++
	}
	return n
}

// Watched counts the handles whose option watch is 1.
func (s *Session) Watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watched)
}

// SetReloadPause sets reloadPause, the shortest time between two checks of the certificate files.
// It must be called before the first call.
func (s *Session) SetReloadPause(d time.Duration) { s.reloadPause = d }

// LookAtCertificates checks the files of a context for changes, as each handshake does before it
// begins.
func (s *Session) LookAtCertificates(h Handle) {
	s.mu.Lock()
	c := s.contexts[h]
	s.mu.Unlock()
	c.refresh()
}

// SetPause sets the pause between attempts to connect. It must be called before the first call.
func (s *Session) SetPause(pause func() <-chan time.Time) { s.attemptPause = pause }

// Race connects to one of several addresses, and Interleave puts the addresses into order.
var (
	Race       = race
	Interleave = interleave
)

// MostAttempts is the number of attempts to connect that may run at the same time.
const MostAttempts = maxAttempts

// SetNames replaces the system's resolver. It must be called before the first call.
func (s *Session) SetNames(r *net.Resolver) { s.resolver = r }
