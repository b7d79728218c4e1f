package session

import (
	"net"
	"time"
)

// MostFinishing is for tests.
const MostFinishing = maxFinishing

// SetGrace makes Close, CloseServerContext and LastError wait longer, or less long, for the calls
// before them. It must be called before the first call.
func (s *Session) SetGrace(d time.Duration) { s.stallTimeout = d }

// SetLastWords gives the peer another time to say why a send has failed. It must be called before
// the first call.
func (s *Session) SetLastWords(d time.Duration) { s.reasonTimeout = d }

// TrustDepth counts the stores that stand behind one another, the current one
// included.
func (s *Session) TrustDepth() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 1
	for t := s.trust; t.fallback != nil; t = t.fallback {
		n++
	}
	return n
}

// SetReloadPause replaces the time in which a context does not look at its files again. No call may
// have been made.
func (s *Session) SetReloadPause(d time.Duration) { s.reloadPause = d }

// SetPause replaces the pause between attempts to connect. No call may have been made.
func (s *Session) SetPause(pause func() <-chan time.Time) { s.attemptPause = pause }

// What connects to one of several addresses.
var (
	Race       = race
	Interleave = interleave
)

// MostAttempts is for tests.
const MostAttempts = maxAttempts

// SetNames replaces the system's look-up of names. No call may have been made.
func (s *Session) SetNames(r *net.Resolver) { s.resolver = r }
