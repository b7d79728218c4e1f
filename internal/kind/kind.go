// Package kind names the ways in which a call can fail. All layers use these names: sessions
// classify errors by kind, messages have the kind in an error's data.kind, and the plugin and Go
// callers act on the kind.
//
// The package imports nothing, so any layer may use it.
package kind

// Kind says why a call failed. There are only a few kinds, so that a program can act on each.
type Kind string

// The kinds. proto.md lists each with its JSON-RPC code.
const (
	// the message is no request, or its parameters have the wrong count, type or range
	Params Kind = "params"
	// the handle is not open, or it is of the wrong sort (a server context in place of a
	// connection, or the reverse)
	Handle    Kind = "handle"
	State     Kind = "state"     // the handle is not in a state that allows the call
	Backend   Kind = "backend"   // there is no usable libssl
	File      Kind = "file"      // a certificate, key or CA file is missing or bad
	Connect   Kind = "connect"   // a TCP connection or a listening socket cannot be made
	Handshake Kind = "handshake" // the TLS handshake failed for another reason than Verify
	Verify    Kind = "verify"    // the peer's certificate was not accepted
	IO        Kind = "io"        // an established connection broke
	Timeout   Kind = "timeout"   // a wait reached its timeout
	// the caller ended the wait: $/cancelRequest, Close, end of the session
	Cancelled Kind = "cancelled"
	Limit     Kind = "limit"    // a configured limit is reached
	Denied    Kind = "denied"   // the administrator does not allow the call
	Lost      Kind = "lost"     // the session's worker, and with it the handle, is gone
	Internal  Kind = "internal" // a fault of tlsd
)

// All lists every kind in the order of proto.md.
var All = []Kind{
	Params, Handle, State, Backend, File, Connect, Handshake, Verify,
	IO, Timeout, Cancelled, Limit, Denied, Lost, Internal,
}
