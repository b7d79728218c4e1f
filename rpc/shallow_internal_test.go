package rpc

import (
	"encoding/json"
	"strings"
	"testing"
)

// depth returns how many levels of nesting a JSON value has, according to encoding/json.
func depth(t *testing.T, msg string) int {
	t.Helper()
	most, now := 0, 0
	for d := json.NewDecoder(strings.NewReader(msg)); ; {
		tok, err := d.Token()
		if err != nil {
			return most
		}
		if delim, ok := tok.(json.Delim); ok {
			if delim == '[' || delim == '{' {
				now++
			} else {
				now--
			}
			most = max(most, now)
		}
	}
}

// shallow writes 0 in the place of each value that is nested too deep. It does so even in a text
// that is cut off.
func TestShallow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		msg  string
		most int
		want string // "": msg is not changed
	}{
		{`1`, 1, ""},
		{`[]`, 1, ""},
		{`[[]]`, 1, `[0]`},
		{`[[]]`, 2, ""},
		{`[1,[2,[3]],4,{"a":[]}]`, 1, `[1,0,4,0]`},
		{`[1,[2,[3]],4,{"a":[]}]`, 2, `[1,[2,0],4,{"a":0}]`},
		{`["[[[[",[]]`, 2, ""},
		{`["[[[[","\"[[[","\\",["]"]]`, 1, `["[[[[","\"[[[","\\",0]`},
		{`{"a\\\"":[[[1]]],"raw":5}`, 2, `{"a\\\"":[0],"raw":5}`},
		{strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), 3, `[[[0]]]`},
		{strings.Repeat("[", 100_000), 3, `[[[0`},
		{`[[["`, 2, `[[0`},
		{`[["`, 2, ""},
	} {
		got, deep := shallow([]byte(c.msg), c.most)
		want := c.want
		if want == "" {
			want = c.msg
		}
		if string(got) != want || deep != (c.want != "") {
			t.Errorf("shallow(%.60s, %d) returns %.60s (nested too deep: %v), want "+
				"%.60s", c.msg, c.most, got, deep, want)
		}
	}
}

// After shallow, valid JSON is still valid JSON, and has at most the levels that are allowed. JSON
// that has at most these levels already is not changed.
func FuzzShallow(f *testing.F) {
	for _, s := range []string{`[]`, `[[["\"]"]]]`, `{"a":{"b\\":{}},"raw":1}`, `["\\\"["]`} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, msg string, most int) {
		if most < 1 || most > 100 || !json.Valid([]byte(msg)) {
			return
		}
		short, deep := shallow([]byte(msg), most)
		if !json.Valid(short) {
			t.Fatalf("shallow has made %q, which is not JSON", short)
		}
		if was := depth(t, msg); deep != (was > most) {
			t.Errorf("the message has %d levels; shallow says that it has more than "+
				"%d: %v", was, most, deep)
		}
		if is := depth(t, string(short)); is > most {
			t.Errorf("%q still has %d levels, want at most %d", short, is, most)
		}
		if !deep && string(short) != msg {
			t.Errorf("%q has no level too many, but shallow has changed it to %q", msg,
				short)
		}
	})
}
