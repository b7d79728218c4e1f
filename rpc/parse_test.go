package rpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"

	"tlsd/rpc/wire"
)

// FuzzParse: parse accepts a message exactly if a plain reading of the specification says that it
// is a request.
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
			t.Fatalf("%q: JSON: %v, but parse says %v", msg, json.Valid(msg), err)
		}
		if err != nil {
			return
		}
		if (c == nil) == (why == "") {
			t.Fatalf("%s: call %v, why %q", msg, c, why)
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
				t.Fatalf("%s: the id is %q", msg, c.id)
			}
		}
		if good != (c != nil) {
			t.Fatalf("%s: a request: %v, but parse says %q", msg, good, why)
		}
	})
}

// TestLargestBlob: one byte more is too much. Only the decoder is called, because the whole way of
// such a line would take the race detector a minute.
func TestLargestBlob(t *testing.T) {
	t.Parallel()
	m := methods["tls.Write"]
	for n, good := range map[int]bool{wire.MaxBlob: true, wire.MaxBlob + 1: false} {
		v := []byte(`"` + base64.StdEncoding.EncodeToString(make([]byte, n)) + `"`)
		data, err := m.value(m.params[1], v)
		switch {
		case good && (err != nil || len(data.([]byte)) != n):
			t.Errorf("%d bytes: %v", n, err)
		case !good && (err == nil ||
			err.Error() != "tls.Write: data: has 16777217 bytes, at most 16777216 are "+
				"allowed"):
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
