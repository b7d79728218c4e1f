// Package admin is the admin socket of tlsd. Over it an administrator asks questions about the
// daemon and gives orders. The package has the messages, the client, and the server. The server
// runs in the supervisor's process.
//
// The rules:
//
//   - Messages have the form of the main socket: JSON-RPC 2.0, one message a line. Parameters have
//     names.
//   - The server serves root and the daemon's own user, and no other user. The kernel names the
//     client's user (SO_PEERCRED).
//   - A client sends one request after another. Each is answered before the next one is read.
//   - The number of clients, the size of a request, and the times for a request and an answer are
//     limited. The server holds no lock of the daemon while it waits for a client.
//   - A question starts no worker and writes no log line. An order writes an audit line.
package admin

import (
	"fmt"
	"time"

	"tlsd/internal/kind"
)

// The methods.
const (
	MethodSessions = "sessions" // the result is a list of Session
	MethodSession  = "session"  // takes SessionParams; the result is a Session
	// MethodEnd takes EndParams. The answer comes when the session has ended. The result is an
	// Ended.
	MethodEnd      = "end"
	MethodLogLevel = "log-level" // takes LogLevelParams; the result is a LogLevel
	MethodDrain    = "drain"     // the daemon stops as on SIGTERM; the result is a Draining
	MethodHealth   = "health"    // the result is a Health
	MethodMetrics  = "metrics"   // the result is a list of Family
)

// Limits.
const (
	MaxClients = 16       // at the same time
	MaxRequest = 16 << 10 // bytes of one request
	MaxAnswer  = 32 << 20 // bytes of one answer
	MaxReason  = 512      // bytes of the reason for an end

	// requestTime limits the time until a client has sent its next request. answerTime limits
	// the time in which a client must read an answer.
	requestTime = time.Minute
	answerTime  = 10 * time.Second
)

// SessionParams name a session.
type SessionParams struct {
	Number uint64 `json:"number"`
}

// EndParams name a session that is to end, and say why. The session's script gets the reason in an
// error.
type EndParams struct {
	Number uint64 `json:"number"`
	Reason string `json:"reason"`
}

// LogLevelParams have a new level: debug, info, warn or error. An empty level changes nothing.
type LogLevelParams struct {
	Level string `json:"level,omitempty"`
}

// LogLevel has the level that is in force after the call.
type LogLevel struct {
	Level string `json:"level"`
}

// Ended says which session has ended.
type Ended struct {
	Number uint64 `json:"number"`
}

// Draining says how many sessions the daemon waits for.
type Draining struct {
	Sessions int `json:"sessions"`
}

// Session describes a session. Known says whether the worker has answered in time. If it is false,
// the fields from Connections on are empty.
type Session struct {
	Number  uint64  `json:"number"`
	UID     uint32  `json:"uid"`
	PID     int32   `json:"pid"`
	Program string  `json:"program"` // of the process that has the PID now; "": none
	Worker  int     `json:"worker"`  // pid
	Age     float64 `json:"age"`     // seconds
	// Waits names a call in flight by its method and its handle, as in "tls.Read 3". If no call
	// is in flight, Waits is "".
	Waits string `json:"waits"`

	Known       bool  `json:"known"`
	Connections int   `json:"connections"` // open handles
	Contexts    int   `json:"contexts"`    // open handles
	Received    int64 `json:"received"`    // bytes from peers, since the session began
	Sent        int64 `json:"sent"`        // bytes to peers
	Calls       int   `json:"calls"`       // in flight
	// Handles has the handles with the lowest numbers. The result of MethodSessions has up to 2
	// connections and 2 contexts of each session. The result of MethodSession has up to 64
	// handles.
	Handles []Handle `json:"handles"`
}

// Handle describes an open handle.
type Handle struct {
	Handle   int32  `json:"handle"`
	Kind     string `json:"kind"`     // "client", "server" or "context"
	State    string `json:"state"`    // the state of a connection; "" for a context
	Peer     string `json:"peer"`     // the peer's address; for a context its own addresses
	Received int64  `json:"received"` // bytes
	Sent     int64  `json:"sent"`     // bytes
}

// Health is the daemon's state, with its problems.
type Health struct {
	Healthy     bool           `json:"healthy"`
	Problems    []string       `json:"problems"` // why the daemon is not healthy
	Version     string         `json:"version"`
	Library     string         `json:"library"`
	Sessions    int            `json:"sessions"`
	MaxSessions int            `json:"maxSessions"`
	Workers     map[string]int `json:"workers"` // by state
	Uptime      float64        `json:"uptime"`  // seconds
}

// Error is an error with a kind, for a client to act on.
type Error struct {
	Kind kind.Kind
	Why  string
}

// Error returns the reason.
func (e *Error) Error() string { return e.Why }

// Fail makes an Error.
func Fail(k kind.Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Why: fmt.Sprintf(format, args...)}
}
