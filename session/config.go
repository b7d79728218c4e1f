package session

import (
	"time"

	"tlsd/internal/audit"
	"tlsd/internal/policy"
)

// Timeouts limit the waits that depend on the network. The comment of a field names its calls and
// its default. Zero means the default.
type Timeouts struct {
	// NewClient: the look-up of the name and the attempts at all its addresses together.
	// Listen, and an Accept that begins to listen: only the look-up. 30 s.
	Connect         time.Duration
	Handshake       time.Duration // Handshake; 30 s
	AcceptHandshake time.Duration // the handshake of one client of a context; 10 s
	Accept          time.Duration // Accept, with the handshake of the client; no timeout
	Read            time.Duration // Read, ReadPlain; no timeout
	// Shutdown, WritePlain, each piece of a Write or of a data channel (see writePiece). 30 s.
	Write time.Duration
	// The end of a connection by Close, by CloseServerContext or by the end of the session: how
	// long the session waits for the peer's system to acknowledge all bytes. At its end, the
	// session first sends the bytes of data channels, and waits as long for that. 1 s.
	Close time.Duration
}

// Limits are the limits of one session. The comment of a field has its default. Zero means the
// default.
type Limits struct {
	Handles int // open handles; 65536
	Calls   int // calls that have not ended; 4096
	Pending int // clients per listener that no Accept has claimed; 128
}

// A Config has the settings of a session.
type Config struct {
	Engine   Engine
	Timeouts Timeouts
	Limits   Limits
	// SkipFailedHandshakes is the initial value of the option failed-handshakes of server
	// contexts. True is "skip": Accept goes on after a client whose handshake has failed.
	SkipFailedHandshakes bool
	// ReloadCertificates is the initial value of the option reload of server contexts. True is
	// "auto": later handshakes use files that were renewed.
	ReloadCertificates bool
	// Policy is what the administrator allows. The zero value allows everything.
	Policy policy.Policy
	// Audit, if not nil, gets the events of the audit log. Calls run this function, so it must
	// not wait.
	Audit func(audit.Event)
	// Observer, if not nil, gets the events for the log. The log level decides which of them
	// are written.
	Observer Observer
	// Meter, if not nil, counts what the session does.
	Meter Meter
}

// WithDefaults replaces zeros with the defaults.
func (c Config) WithDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Timeouts.Connect, 30*time.Second)
	def(&c.Timeouts.Handshake, 30*time.Second)
	def(&c.Timeouts.AcceptHandshake, 10*time.Second)
	def(&c.Timeouts.Write, 30*time.Second)
	def(&c.Timeouts.Close, time.Second)
	lim := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	lim(&c.Limits.Handles, 65536)
	lim(&c.Limits.Calls, 4096)
	lim(&c.Limits.Pending, 128)
	return c
}
