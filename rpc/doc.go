// Package rpc serves sessions as JSON-RPC 2.0 over a connection. proto.md is its specification. The
// packages session and openssl do not know JSON.
//
// The way of a call:
//
//	wire.Reader ─ line ─▶ stream ─ request ──▶ jsonrpc2.Conn ─▶ server.Handle ─▶ session
//	wire.Writer ◀─ line ─ stream ◀─ response ─ jsonrpc2.Conn ◀─ server.reply ◀── session
//
// The jsonrpc2 library decodes every request, hands it to server.Handle, and encodes the answer.
// But it does not do all that the specification of JSON-RPC demands. So the stream in front of the
// library handles bad lines, batches, and ids of every kind.
//
// Promises:
//
//   - Each request is answered exactly once; a notification never.
//   - Calls are begun in the order in which they arrive.
//   - One table (methodtable.go) is used for dispatch, for decoding, and for the document of
//     rpc.discover.
//   - One function (wireError) turns each Go error into an error of the protocol.
//   - A caller that does not read its answers blocks only itself, and for at most
//     Config.AnswerTimeout.
package rpc
