// Package rpc serves sessions as JSON-RPC 2.0 over a connection. proto.md is its
// specification; nothing below this package knows JSON.
//
// The way of a call:
//
//	wire.Reader ─ a line ─▶ stream ─ calls ─▶ jsonrpc2.Conn ─▶ server.begin ─▶ session
//	wire.Writer ◀──────────────── an answer ◀── server.answer ◀──────────────── session
//
// The jsonrpc2 library runs the loop that reads and dispatches. It closes the
// connection on a line that it does not like, answers neither with id null nor
// a batch, and knows no raw bytes; so the stream before it checks every line,
// answers bad ones itself and hands on only the names of good calls, and
// answers go past the library.
//
// Promises:
//
//   - Each request is answered exactly once; a notification never.
//   - Calls are begun in the order in which they arrive.
//   - One table (methods) gives dispatch, decoding, and the rpc.discover document.
//   - One function (wireError) makes a wire error of a Go error.
//   - A caller that does not read its answers blocks nobody but itself, and not
//     for longer than Config.AnswerTimeout.
package rpc
