package session

import (
	"net"
	"time"
)

// MostFinishing is for tests.
const MostFinishing = maxFinishing

// SetStallTimeout sets how long Close, CloseServerContext and LastError wait while no earlier call
// ends. It must be called before the first call.
func (s *Session) SetStallTimeout(d time.Duration) { s.stallTimeout = d }

// SetReasonTimeout sets how long a failed send waits for the peer's reason. It must be called
// before the first call.
func (s *Session) SetReasonTimeout(d time.Duration) { s.reasonTimeout = d }

// TrustDepth counts the stores in the chain of fallbacks, the current one included.
func (s *Session) TrustDepth() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 1
	for t := s.trust; t.fallback != nil; t = t.fallback {
		n++
	}
	return n
}

// Watched counts the handles that a Wait looks at.
func (s *Session) Watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watched)
}

// SetReloadPause sets the shortest time between two looks of a context. No call must have been
// made.
func (s *Session) SetReloadPause(d time.Duration) { s.reloadPause = d }

// LookAtCertificates looks at the files of a context, as a handshake that is about to begin does.
func (s *Session) LookAtCertificates(h Handle) {
	s.mu.Lock()
	c := s.contexts[h]
	s.mu.Unlock()
	c.refresh()
}

// SetPause sets the pause between attempts to connect. No call must have been made.
func (s *Session) SetPause(pause func() <-chan time.Time) { s.attemptPause = pause }

// Functions that connect to one of several addresses.
var (
	Race       = race
	Interleave = interleave
)

// MostAttempts is for tests.
const MostAttempts = maxAttempts

// SetNames replaces the system's resolver. No call must have been made.
func (s *Session) SetNames(r *net.Resolver) { s.resolver = r }
