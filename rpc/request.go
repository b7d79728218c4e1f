package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/sourcegraph/jsonrpc2"
)

// call is one request on its way.
type call struct {
	// Set by the stream.
	number   uint64          // stands for the id towards the library
	id       json.RawMessage // as it was written; nil: a notification
	batch    *batch          // nil: not in a batch
	method   json.RawMessage // a JSON string
	params   json.RawMessage // nil: left out
	repeated string          // a parameter's name that is there twice, or ""
	refusal  error           // why the call cannot be carried out, if that is known already

	lib      *jsonrpc2.Conn // that answers it; set when the call is begun
	buffered int            // bytes that are kept for it; see server.hold
	op       string         // the method; guarded by server.mu
	handle   int32          // that it names, or 0; guarded by server.mu
	cancel   func()         // ends the call early; nil: it does not wait; guarded by server.mu
}

// message is the request as the library is to see it. The call keeps nothing of what may be large.
func (c *call) message() []byte {
	defer func() { c.method, c.params = nil, nil }()
	out := strconv.AppendUint([]byte(`{"jsonrpc":"2.0","id":`), c.number, 10)
	out = append(append(out, `,"method":`...), c.method...)
	if c.params != nil {
		out = append(append(out, `,"params":`...), c.params...)
	}
	return append(out, '}')
}

// parse takes a request apart. If it is not a request of JSON-RPC 2.0 (section 4 of its
// specification), the call is nil and why says so; if it is not JSON, there is an error. Names of
// members are compared exactly, which encoding/json does only with maps.
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

// request makes a call of the members of an object.
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

// repeated is a name that an object has twice, or "". The library would keep one of the two.
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
		return true // null: nothing else in JSON starts so
	}
	return isInteger(id)
}

// isInteger says whether a JSON number is written without fraction and exponent.
func isInteger(v []byte) bool {
	digits := bytes.TrimPrefix(v, []byte("-"))
	for _, d := range digits {
		if d < '0' || d > '9' {
			return false
		}
	}
	return len(digits) > 0
}

// sameID compares two valid ids by value.
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

// text is the value of a JSON string, "" of anything else.
func text(v []byte) string {
	var s string
	if json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// clip shortens a value that is shown in an error.
func clip(v []byte) string {
	const most = 60
	if len(v) > most {
		return string(v[:most]) + "…"
	}
	return string(v)
}

// syntaxError is err if that says where a line is not JSON, else nil. It does not quote the line.
func syntaxError(err error) error {
	if syntax, ok := err.(*json.SyntaxError); ok {
		return fmt.Errorf("%v at byte %d", syntax, syntax.Offset)
	}
	return nil
}
