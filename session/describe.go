package session

import (
	"cmp"
	"slices"
	"strings"
)

// An Overview describes a session for the administrator.
type Overview struct {
	Connections, Contexts int   // open handles
	Received, Sent        int64 // bytes of all connections, since the session began
	Calls                 int   // calls that have not ended
	Handles               []HandleOverview
}

// A HandleOverview describes an open handle.
type HandleOverview struct {
	Handle         Handle
	Kind           string // "client", "server" or "context"
	State          string // of a connection: "making", "open", "handshake", "ready" or "broken"
	Peer           string // the peer's address; of a context, its own addresses
	Received, Sent int64
}

var stateNames = map[connState]string{
	connMaking:    "making",
	connOpen:      "open",
	connHandshake: "handshake",
	connReady:     "ready",
	connBroken:    "broken",
}

// Describe returns an overview, with at most the given number of handles. The handles with the
// lowest numbers come first. Describe does not wait, and may be called at any time.
func (s *Session) Describe(most int) Overview {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := Overview{
		Connections: len(s.conns), Contexts: len(s.contexts), Calls: len(s.calls),
		Received: s.meter.received.Load(), Sent: s.meter.sent.Load(),
	}
	for h, c := range s.conns {
		v := HandleOverview{Handle: h, Kind: "client", State: stateNames[c.state]}
		if c.accepted {
			v.Kind = "server"
		}
		if c.state != connMaking { // in connMaking, remote may not be set yet
			v.Peer = c.remote
		}
		v.Peer = cmp.Or(v.Peer, c.peer)
		st := c.flow.status()
		v.Received, v.Sent = st.Received, st.Sent
		o.Handles = append(o.Handles, v)
	}
	for h, c := range s.contexts {
		o.Handles = append(o.Handles, HandleOverview{Handle: h, Kind: "context",
			Peer: strings.Join(c.addresses(), ",")})
	}
	slices.SortFunc(o.Handles, func(a, b HandleOverview) int {
		return cmp.Compare(a.Handle, b.Handle)
	})
	o.Handles = o.Handles[:min(len(o.Handles), most)]
	return o
}

// addresses lists where the context listens. s.mu must be held.
func (c *serverContext) addresses() []string {
	var list []string
	for addr := range c.listeners {
		list = append(list, addr)
	}
	slices.Sort(list)
	return list
}
