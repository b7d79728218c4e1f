package rpc

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"tlsd/rpc/wire"
)

// FuzzDecode: the decoder accepts only parameters that fit the method's table. Parameters by name
// give the same result as by position.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`[]`, `{}`, `["localhost",443]`, `{"port":443,"host":"a"}`, `[1]`, `[1,"aGVsbG8="]`, `{"handle":1,"data":""}`, `[1,16777216]`, `[1,0]`,
		`["/c","/k"]`, `[1,"::",65535]`, `{"version":1,"capabilities":["raw","\ud800"],"firstHandle":7}`, `["x"]`, `[null]`, `[-0]`, `{"h\u0061ndle":1}`,
		`{"handle":1,"handle":1}`, `[1.0]`, `["a\u0000b",1]`, `[1,"aGVsbG8"]`, `[1,"aGVs\nbG8="]`,
	} {
		for i := range methods {
			f.Add(i, []byte(s))
		}
	}
	names := slices.Sorted(maps.Keys(methods))
	f.Fuzz(func(t *testing.T, name string, params []byte) {
		m := methods[name]
		if m == nil { // the fuzzer rarely finds a name, so other texts stand for methods
			sum := 0
			for _, b := range []byte(name) {
				sum += int(b)
			}
			m = methods[names[sum%len(names)]]
		}
		// parse passes on only valid JSON in UTF-8 that is an array or an object.
		if !json.Valid(params) || !utf8.Valid(params) ||
			first(params) != '[' && first(params) != '{' {
			return
		}
		if repeated(params) != "" {
			return // tlsd refuses a name that is there twice, before it decodes
		}
		a, err := m.decode(params)
		if err != nil {
			if !strings.HasPrefix(err.Error(), m.name+": ") || a != nil {
				t.Fatalf("%s %s: the error %v does not name the method, or comes "+
					"with values: %v", m.name, params, err, a)
			}
			return
		}
		again := map[string]any{}
		for i, p := range m.params {
			v := a[i]
			ok := v == nil && p.optional
			switch x := v.(type) {
			case int64:
				ok = p.typ == integer && x >= p.min && x <= p.max
			case string:
				ok = p.typ == str && int64(len(x)) >= p.min &&
					int64(len(x)) <= p.max && !strings.ContainsRune(x, 0) &&
					utf8.ValidString(x)
			case []byte:
				ok = p.typ == blob && len(x) <= wire.MaxBlob
				v = base64.StdEncoding.EncodeToString(x)
			case []string:
				ok = p.typ == texts
			case json.RawMessage:
				ok = p.typ == anyID && validID(x)
			}
			if !ok {
				t.Fatalf("%s %s: the table does not allow this value of %s: %v",
					m.name, params, p.name, v)
			}
			if v != nil {
				again[p.name] = v
			}
		}
		byName := encode(again) // an id is encoded as it was written
		if b, err := m.decode(byName); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%s: the parameters %s become %v; by name, as %s, they become "+
				"%v, %v", m.name, params, a, byName, b, err)
		}
	})
}
