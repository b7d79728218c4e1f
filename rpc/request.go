package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"tlsd/rpc/wire"
)

// call is one request on its way.
type call struct {
	id     json.RawMessage // as it was written; nil: a notification
	method string
	params json.RawMessage // nil: left out
	args   args            // the parameters, if they are decoded already
	raw    []byte          // the raw bytes that followed; nil: none were announced
	batch  *batch          // nil: not in a batch
	held   int             // bytes that are kept for it; see server.hold
	refuse error           // why it cannot be carried out, if that is known already

	joined []part // the Writes that this call carries out, if they are several
	moves  bool   // its answer is the last on the socket

	handle int32  // that it names, or 0; set when it has begun
	cancel func() // ends the call early; set when it has begun
}

// hasID says whether the call answers a request with this id.
func (c *call) hasID(id []byte) bool {
	for _, w := range c.joined {
		if sameID(w.id, id) {
			return true
		}
	}
	return c.id != nil && sameID(c.id, id)
}

// What parse finds out about raw bytes, besides their number.
const (
	noRaw  = -1 // none are announced
	badRaw = -2 // announced, but not with a number
)

// parse takes a request apart, which must be JSON. If it is not a request of
// JSON-RPC 2.0 (section 4 of its specification), the call is nil and why says so. Names are compared
// exactly, which encoding/json does only with maps.
func parse(msg []byte) (c *call, raw int, why string) {
	var m map[string]json.RawMessage
	if first(msg) != '{' || json.Unmarshal(msg, &m) != nil {
		return nil, noRaw, "a request is an object"
	}
	raw = noRaw
	if r, ok := m["raw"]; ok {
		n, err := strconv.Atoi(string(r))
		if err != nil || n < 0 || n > wire.MaxBlob {
			return nil, badRaw, fmt.Sprintf("raw %s: must be an integer from 0 to %d", clip(r), wire.MaxBlob)
		}
		raw = n
	}
	if v, ok := m["jsonrpc"]; !ok || text(v) != "2.0" {
		return nil, raw, `"jsonrpc" must be "2.0"`
	}
	c = &call{id: m["id"], params: m["params"]}
	if v, ok := m["method"]; !ok || first(v) != '"' {
		return nil, raw, `"method" must be a string`
	} else {
		c.method = text(v)
	}
	if c.id != nil && !validID(c.id) {
		return nil, raw, fmt.Sprintf("id %s: must be a string, an integer or null", clip(c.id))
	}
	if c.params != nil && first(c.params) != '[' && first(c.params) != '{' {
		return nil, raw, `"params" must be an array or an object`
	}
	return c, raw, ""
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

// syntaxError says where line is not JSON, or nil. It does not quote the line.
func syntaxError(line []byte) error {
	if json.Valid(line) {
		return nil
	}
	var v json.RawMessage
	err := json.Unmarshal(line, &v)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%v at byte %d", syntax, syntax.Offset)
	}
	return err
}
