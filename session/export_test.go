package session

import (
	"net"
	"time"
)

// MostFinishing is the number of closes that may run in the background.
const MostFinishing = maxFinishing

// SetStallTimeout sets how long Close, CloseServerContext and LastError wait if no earlier call
// ends. It must be called before the first call.
func (s *Session) SetStallTimeout(d time.Duration) { s.stallTimeout = d }

// SetReasonTimeout sets how long a failed send waits for an alert of the peer. It must be called
// before the first call.
func (s *Session) SetReasonTimeout(d time.Duration) { s.reasonTimeout = d }

// TrustDepth counts the trust stores that form a chain. The chain begins with the current store. A
// store that could not be loaded names the next one, which is used in its place.
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

// Functions that connect to one of several addresses.
var (
	Race       = race
	Interleave = interleave
)

// MostAttempts is the number of attempts to connect that may run at the same time.
const MostAttempts = maxAttempts

// SetNames replaces the system's resolver. It must be called before the first call.
func (s *Session) SetNames(r *net.Resolver) { s.resolver = r }
