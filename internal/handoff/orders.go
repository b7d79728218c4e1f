package handoff

import "tlsd/internal/plain"

// An administrator can ask about a session, and can order its end. The question is
// ToWorker.Describe. This file has the worker's answer, Described, and the order, End. The
// supervisor asks at most one question about a session at a time. An answer without a question
// breaks the rules.

// Bounds of an answer.
const (
	MostHandles = 64  // most handles in a Described
	longestPeer = 300 // bytes of a peer
	longestWord = 16  // bytes of a kind or a state
)

// End orders a session to end. The session's caller is told the reason.
type End struct {
	Number uint64 `json:"number"`
	Reason string `json:"reason"`
}

// Described describes a session: its handles, its bytes and its calls.
type Described struct {
	Number      uint64   `json:"number"`
	Gone        bool     `json:"gone,omitempty"` // there is no such session
	Connections int      `json:"connections,omitempty"`
	Contexts    int      `json:"contexts,omitempty"`
	Received    int64    `json:"received,omitempty"` // bytes since the session began
	Sent        int64    `json:"sent,omitempty"`     // bytes since the session began
	Calls       int      `json:"calls,omitempty"`    // calls in flight
	Handles     []Handle `json:"handles,omitempty"`  // the first MostHandles open handles
}

// Handle describes an open handle.
type Handle struct {
	Handle   int32  `json:"handle"`
	Kind     string `json:"kind"`
	State    string `json:"state,omitempty"`
	Peer     string `json:"peer,omitempty"`
	Received int64  `json:"received,omitempty"`
	Sent     int64  `json:"sent,omitempty"`
}

// Clean limits the answer: it drops the handles after the first MostHandles, shortens texts, makes
// control characters visible, and replaces negative numbers by 0.
func (d Described) Clean() Described {
	d.Connections, d.Contexts, d.Calls = max(d.Connections, 0), max(d.Contexts, 0),
		max(d.Calls, 0)
	d.Received, d.Sent = max(d.Received, 0), max(d.Sent, 0)
	var handles []Handle
	for _, h := range d.Handles[:min(len(d.Handles), MostHandles)] {
		handles = append(handles, Handle{
			Handle: max(h.Handle, 0), Kind: plain.Text(h.Kind, longestWord),
			State: plain.Text(h.State, longestWord),
			Peer:  plain.Text(h.Peer, longestPeer), Received: max(h.Received, 0),
			Sent: max(h.Sent, 0),
		})
	}
	d.Handles = handles
	return d
}
