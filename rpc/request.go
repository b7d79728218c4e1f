package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/sourcegraph/jsonrpc2"
)

// A call is one request, from its arrival to its answer. "The library" is the jsonrpc2 library.
type call struct {
	// The stream sets these.
	number   uint64          // the library gets this number in place of the id
	id       json.RawMessage // as the caller wrote it; nil: a notification
	batch    *batch          // nil: not in a batch
	method   json.RawMessage // a JSON string
	params   json.RawMessage // nil: left out
	repeated string          // the name of a parameter that is there twice, or ""
	refusal  error           // if not nil, the call is not carried out, but gets this error

	lib      *jsonrpc2.Conn // takes the answer; set when the call is begun
	buffered int            // bytes that are kept for the call; see server.reserveBuffer
	op       string         // the method; guarded by server.mu
	handle   int32          // the handle that the call names, or 0; guarded by server.mu
	// cancel ends the call early. It is nil if the call does not run, or cannot be ended early.
	// Guarded by server.mu.
	cancel func()
}

// message returns the request in the form for the library. The call then drops method and params,
// because they may be large.
func (c *call) message() []byte {
	defer func() { c.method, c.params = nil, nil }()
	out := strconv.AppendUint([]byte(`{"jsonrpc":"2.0","id":`), c.number, 10)
	out = append(append(out, `,"method":`...), c.method...)
	if c.params != nil {
		out = append(append(out, `,"params":`...), c.params...)
	}
	return append(out, '}')
}

// parse takes a request apart. It returns an error if msg is not JSON. If msg is not a request of
// JSON-RPC 2.0 (section 4 of its specification), the call is nil, and the second result is the
// reason. parse decodes into a map: with a struct, package encoding/json would ignore the case of
// the members' names.
func parse(msg []byte) (c *call, why string, err error) {
	why = "a request is an object"
	var m map[string]json.RawMessage
	if err := json.Unmarshal(msg, &m); err != nil {
		return nil, why, syntaxError(err)
	}
	if m == nil { // null
		return nil, why, nil
	}
	c, why = request(m)
	return c, why, nil
}

// request makes a call from the members of an object. If they are no request, the call is nil, and
// the second result is the reason.
func request(m map[string]json.RawMessage) (c *call, why string) {
	if v, ok := m["jsonrpc"]; !ok || text(v) != "2.0" {
		return nil, `"jsonrpc" must be "2.0"`
	}
	c = &call{id: m["id"], method: m["method"], params: m["params"]}
	if first(c.method) != '"' {
		return nil, `"method" must be a string`
	}
	if c.id != nil && !validID(c.id) {
		return nil, fmt.Sprintf("id %s: must be a string, an integer or null", clip(c.id))
	}
	if c.params != nil && first(c.params) != '[' && first(c.params) != '{' {
		return nil, `"params" must be an array or an object`
	}
	c.repeated = repeated(c.params)
	return c, ""
}

// repeated returns a name that an object has twice, or "". A decoder would keep only one of the two
// values.
func repeated(params json.RawMessage) string {
	if first(params) != '{' {
		return ""
	}
	seen := map[string]bool{}
	d := json.NewDecoder(bytes.NewReader(params))
	d.Token() // the brace
	for d.More() {
		t, _ := d.Token()
		name, _ := t.(string)
		if seen[name] {
			return name
		}
		seen[name] = true
		var value json.RawMessage
		if d.Decode(&value) != nil {
			break
		}
	}
	return ""
}

func validID(id []byte) bool {
	switch first(id) {
	case '"':
		return true
	case 'n':
		return true // null: no other JSON value starts with n
	}
	return isInteger(id)
}

// isInteger says whether a JSON number has neither fraction nor exponent.
func isInteger(v []byte) bool {
	digits := bytes.TrimPrefix(v, []byte("-"))
	for _, d := range digits {
		if d < '0' || d > '9' {
			return false
		}
	}
	return len(digits) > 0
}

// sameID compares the values of two valid ids.
func sameID(a, b []byte) bool {
	if first(a) == '"' && first(b) == '"' {
		return text(a) == text(b)
	}
	return bytes.Equal(a, b)
}

// first is the first byte of a JSON value.
func first(v []byte) byte {
	if v = bytes.TrimLeft(v, " \t\r\n"); len(v) > 0 {
		return v[0]
	}
	return 0
}

// text is the content of a JSON string. For any other JSON value it is "".
func text(v []byte) string {
	var s string
	if json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// clip shortens a value for an error.
func clip(v []byte) string {
	const most = 60
	if len(v) > most {
		return string(v[:most]) + "…"
	}
	return string(v)
}

// syntaxError takes the error of package json for a line. If the line is not JSON, syntaxError
// returns an error that names the wrong byte, but does not quote the line. If the line is JSON, but
// no object, syntaxError returns nil.
func syntaxError(err error) error {
	if syntax, ok := err.(*json.SyntaxError); ok {
		return fmt.Errorf("%v at byte %d", syntax, syntax.Offset)
	}
	return nil
}
