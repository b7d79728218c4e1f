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
//   - Closing a handle ends the calls that wait on it with kind "cancelled".
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
// Write, Read, PeerCertSubject and Version need ready; SetInsecureSkipVerify
// needs open; Handshake needs open, and answers at once in ready; SetTimeout works in both; Close in
// all of them but closed. All changes go through connection.become.
package session
