// Package session has all that one caller owns: its handles, its CA bundle, its last error, and the
// order of its calls. It decides which calls are allowed. The [Engine] encrypts, and package rpc
// translates calls from and to JSON.
//
// # Promises
//
//   - A session reaches nothing of another session.
//   - The number of a handle is taken when the call that makes the handle arrives. A number is
//     never used twice, and fits in an int32.
//   - Calls run in the order in which they were made. But a call that waits does not hold up calls
//     on other handles (see [Call]).
//   - The Close of a handle waits for the earlier calls on the handle. If none of them ends within
//     stallTimeout, the Close ends those that still wait, with kind "cancelled". The Close also
//     sends the bytes of the handle's data channel to the peer. It is answered when all these bytes
//     are sent, or cannot be sent.
//   - A stuck peer, or a caller that does not read, delays only its own connection.
//   - No error of a connection is lost. The call that meets the error returns it. If no call meets
//     the error, the result of Status has it. Close returns an error of writing that no earlier
//     call has returned.
//   - After [Session.End] no connection, listener or goroutine of the session is left.
//   - Nothing blocks under the session's lock.
//
// # States of a connection
//
//	          NewClient                Handshake
//	making ──────────────▶ open ──────────────────▶ handshake ──ok──▶ ready
//	  │ │                    │                          │               │
//	  │ └────── Accept ──────┼──────────────────────────┼──────▶ ready  │
//	  │                      │                        failed            │
//	failed                   │                          ▼               │
//	  │                      │                        broken            │
//	  ▼                      ▼         Close            ▼               ▼
//	closed ◀─────────────────┴──────────────────────────┴───────────────┘
//
// With the option handshake "later", an Accept leads to the state open, as NewClient does.
//
// Write, Read, Status, Flush, Shutdown, PeerCertSubject and Version need the state ready.
// SetInsecureSkipVerify, SetCertificate, SetOption, ReadPlain and WritePlain need open. SetTimeout
// and the option watch work in open and in ready. Handshake needs open. In ready, a Handshake
// without a data channel does nothing, and succeeds. Close works in all states but failed and
// closed. Only connection.become changes the state.
//
// # Bytes
//
// The bytes of a connection go one of two ways. A data channel comes with Handshake or Accept. Two
// goroutines then carry the bytes (pump.go), and Read and Write are refused. Without a data channel
// the calls Read and Write carry the bytes (readwrite.go). In both cases a flow has the state of
// the two directions (flow.go).
package session
