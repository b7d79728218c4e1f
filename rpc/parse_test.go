package rpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"

	"tlsd/rpc/wire"
)

// FuzzParse compares parse with a plain check of the specification's rules for a request. Both must
// accept the same messages.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{}`, `1`, `{"jsonrpc":"2.0","id":1,"method":"a"}`, `{"jsonrpc":"2.0","id":1.5,"method":"a"}`, `{"jsonrpc":"2.0","method":"a","params":[]}`,
		`{"jsonrpc":"2.0","id":null,"method":"","params":{},"x":5}`, `{"jsonrpc":"2.0","id":"x","method":1}`, `{"jsonrpc":"2.0","method":"a","params":null}`,
		`{"jsonrpc":"2.0","id":-0,"method":"a"}`, `{"jsonrpc":2,"id":{},"method":"a"}`, `{"id":1,"id":true,"jsonrpc":"2.0","method":"\u0061"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		c, why, err := parse(msg)
		if (err == nil) != json.Valid(msg) {
			t.Fatalf("%q is JSON: %v, but parse returns the error %v", msg,
				json.Valid(msg), err)
		}
		if err != nil {
			return
		}
		if (c == nil) == (why == "") {
			t.Fatalf("%s: parse returns the call %v and the refusal %q; want "+
				"exactly one of the two", msg, c, why)
		}
		var m map[string]any
		d := json.NewDecoder(bytes.NewReader(msg))
		d.UseNumber()
		good := d.Decode(&m) == nil && m != nil && m["jsonrpc"] == "2.0"
		if good {
			_, isText := m["method"].(string)
			id, hasID := m["id"]
			switch v := id.(type) {
			case json.Number:
				good = !bytes.ContainsAny([]byte(v), ".eE")
			case string, nil:
			default:
				good = false
			}
			params, hasParams := m["params"]
			switch params.(type) {
			case []any, map[string]any:
			default:
				good = good && !hasParams
			}
			good = good && isText
			if c != nil && (c.id != nil) != hasID {
				t.Fatalf("%s: parse has found the id %q; the message has an id: %v",
					msg, c.id, hasID)
			}
		}
		if good != (c != nil) {
			t.Fatalf("%s: by the specification this is a request: %v; parse's "+
				"reason to refuse it: %q", msg, good, why)
		}
	})
}

// A blob of wire.MaxBlob bytes is accepted, and one byte more is refused. The test calls only the
// decoder. With the race detector, a session would need a minute for a line of this length.
func TestLargestBlob(t *testing.T) {
	t.Parallel()
	m := methods["tls.Write"]
	for n, good := range map[int]bool{wire.MaxBlob: true, wire.MaxBlob + 1: false} {
		v := []byte(`"` + base64.StdEncoding.EncodeToString(make([]byte, n)) + `"`)
		data, err := m.value(m.params[1], v)
		switch {
		case good && (err != nil || len(data.([]byte)) != n):
			t.Errorf("a blob of %d bytes is not accepted whole: %v", n, err)
		case !good && (err == nil ||
			err.Error() != "tls.Write: data: has 16777217 bytes, at most 16777216 are "+
				"allowed"):
			t.Errorf("a blob of %d bytes gives the error %v; want one that names "+
				"both sizes", n, err)
		}
	}
}
