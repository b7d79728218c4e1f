// Package wire has the messages of proto.md as Go types. It reads and writes them, one message a
// line. The server (package rpc) and clients use this package.
package wire

import (
	"encoding/json"
	"time"

	"tlsd/internal/kind"
)

// Version is the version of the protocol that tls.Hello agrees on.
const Version = 1

// Limits of the protocol, in bytes.
const (
	MaxBlob = 1 << 24  // one blob
	MaxLine = 23 << 20 // one message: the largest blob as base64, and some room
)

// MaxBatch is the most calls of a batch.
const MaxBatch = 1024

// CapabilityData is a capability of tls.Hello: a connection's bytes may go over a data channel.
const CapabilityData = "data"

// Codes of the JSON-RPC 2.0 specification, section 5.1.
const (
	CodeParse          = -32700
	CodeInvalidRequest = -32600
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602
	CodeInternal       = -32603
)

// Codes has the JSON-RPC code of each kind. Only kind.Params has several codes. Codes has the one
// for bad parameters. The others are CodeParse and CodeInvalidRequest for a bad message, and
// CodeMethodNotFound for an unknown method.
var Codes = map[kind.Kind]int{
	kind.Params:    CodeInvalidParams,
	kind.Internal:  CodeInternal,
	kind.Handle:    -32001,
	kind.State:     -32002,
	kind.Backend:   -32003,
	kind.File:      -32004,
	kind.Connect:   -32005,
	kind.Handshake: -32006,
	kind.Verify:    -32007,
	kind.IO:        -32008,
	kind.Timeout:   -32009,
	kind.Cancelled: -32010,
	kind.Limit:     -32011,
	kind.Denied:    -32012,
	kind.Lost:      -32013,
}

// A Request is a call, or a notification if ID is nil.
type Request struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// A Response answers a call, with either Result or Error.
type Response struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}

// An Error is the error member of a Response.
type Error struct {
	Code    int        `json:"code"`
	Message string     `json:"message"`
	Data    *ErrorData `json:"data,omitempty"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// ErrorData is the data member of an Error.
type ErrorData struct {
	Kind    kind.Kind     `json:"kind"`
	Op      string        `json:"op,omitempty"`
	Handle  int32         `json:"handle,omitempty"`
	Errno   string        `json:"errno,omitempty"`
	Verify  *VerifyDetail `json:"verify,omitempty"`
	OpenSSL []string      `json:"openssl,omitempty"`
}

// A VerifyDetail says why a certificate was not accepted.
type VerifyDetail struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Depth   int    `json:"depth"`
	Subject string `json:"subject"`
	Store   string `json:"store"`
}

// HelloParams are the parameters of tls.Hello, by name.
type HelloParams struct {
	Version      int      `json:"version"`
	Capabilities []string `json:"capabilities,omitempty"`
	FirstHandle  int32    `json:"firstHandle,omitempty"`
}

// Hello is the result of tls.Hello.
type Hello struct {
	Version      int      `json:"version"`
	Capabilities []string `json:"capabilities"`
	Server       Server   `json:"server"`
	// Timeouts has tlsd's own timeouts in milliseconds, under the same names as in tls.Info.
	// They apply unless tls.SetTimeout sets others. 0 means no limit.
	Timeouts map[string]int64 `json:"timeouts"`
}

// Status is the result of tls.Status.
type Status struct {
	Read       string `json:"read"`     // "open", "end" (the peer's close_notify) or "failed"
	Write      string `json:"write"`    // "open", "shut" (close_notify was sent) or "failed"
	Received   int64  `json:"received"` // bytes that were given to the caller
	Sent       int64  `json:"sent"`     // bytes that have left for the peer
	ReadError  *Error `json:"readError,omitempty"`
	WriteError *Error `json:"writeError,omitempty"`
}

// A Server names the program that answers.
type Server struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
}

// Info is the result of tls.Info.
type Info struct {
	Backend  string           `json:"backend"`
	Libssl   Libssl           `json:"libssl"`
	Trust    Trust            `json:"trust"`
	Timeouts map[string]int64 `json:"timeouts"`
	Limits   map[string]int64 `json:"limits"`
	// Confinement has an entry for each measure that was asked for: "on", or the reason why the
	// measure is not in force. It is left out if none was asked for.
	Confinement map[string]string `json:"confinement,omitempty"`
	// Policy has the keys of the administrator's policy that bind the session, with their
	// values. A value is a bool, a string or an array of strings. Policy is left out if there
	// are no such keys.
	Policy map[string]any `json:"policy,omitempty"`
}

// Libssl describes the library, or says why there is none.
type Libssl struct {
	Path      string `json:"path,omitempty"`
	Libcrypto string `json:"libcrypto,omitempty"` // file of the libcrypto that libssl uses
	Version   string `json:"version,omitempty"`
	Pair      string `json:"pair,omitempty"` // text: whether the two files are of one build
	Error     string `json:"error,omitempty"`
}

// Trust describes the system's trust store.
type Trust struct {
	Source       string `json:"source,omitempty"`
	File         string `json:"file,omitempty"`
	Dir          string `json:"dir,omitempty"`
	Certificates int    `json:"certificates"`

	// paths that were tried and have no certificates, each with the reason
	Empty []string `json:"empty,omitempty"`
}

// Milliseconds converts a timeout for a message. It rounds up, so that a short timeout does not
// become 0. A negative timeout becomes -1, which means no limit in tls.Wait.
func Milliseconds(timeout time.Duration) int64 {
	if timeout < 0 {
		return -1
	}
	return int64((timeout + time.Millisecond - 1) / time.Millisecond)
}
