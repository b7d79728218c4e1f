// Package session is what one caller owns: its handles, its CA bundle, its
// last error, and the order of its calls. It decides whether a call may be
// made; how a connection is encrypted is the [Engine]'s business, and how calls
// travel is package rpc's.
//
// # Promises
//
//   - A session reaches nothing of another session.
//   - A handle's number is taken when the call that makes it arrives, is never
//     given out twice, and fits in an int32.
//   - Calls run in the order in which they were made, except that a call that
//     waits does not hold up calls on other handles (see [Call]).
//   - Closing a handle ends the calls that wait on it with kind "cancelled". What the caller has
//     sent on the handle's data channel leaves first.
//   - A stuck peer, or a caller that does not read, delays only its own connection.
//   - No error of a connection is lost: the caller is told it by the call that meets it, by Status,
//     or by Close.
//   - After [Session.End] nothing is left: no connection, listener, goroutine.
//   - Nothing blocks under the session's lock.
//
// # States of a connection
//
//	           NewClient                 Handshake
//	making ───────────────▶ open ───────────────────▶ shaking ──ok──▶ ready
//	  │ │                     │                          │              │
//	  │ └────── Accept ───────┼──────────────────────────┼──────▶ ready │
//	  │                       │                        failed           │
//	failed                    │                          ▼              │
//	  │                       │                        broken           │
//	  ▼                       ▼          Close           ▼              ▼
//	closed ◀──────────────────┴──────────────────────────┴──────────────┘
//
// Write, Read, Status, Flush, Shutdown, PeerCertSubject and Version need ready;
// SetInsecureSkipVerify needs open; Handshake needs open, and answers at once in ready; SetTimeout
// works in both; Close in all of them but closed. All changes go through connection.become.
//
// # Bytes
//
// The bytes of a connection go one of two ways. With a data channel, which comes with Handshake or
// Accept, two goroutines carry them (pump.go), and Read and Write are refused. Without one, the
// calls Read and Write carry them (plain.go). In both cases a flow says how the two directions
// stand (flow.go).
package session
