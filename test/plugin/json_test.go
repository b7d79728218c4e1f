package plugin

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The plugin reads JSON as Go reads it.

// readAsGo returns what testdata/jsoncheck.c must print for a document. It reads the document with
// encoding/json. Like the plugin, it also refuses a document that is not UTF-8, or that is nested
// more than 32 levels deep. It replaces U+0000 by U+FFFD.
func readAsGo(doc []byte) string {
	if !json.Valid(doc) || !utf8.Valid(doc) || nesting(doc) > 32 {
		return "no"
	}
	v, ok := memberV(doc)
	if !ok {
		return "yes none"
	}
	says := "yes"
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		says += fmt.Sprintf(" int %d", n)
	}
	if v[0] == '"' {
		var s string
		json.Unmarshal(v, &s)
		says += " text " + hex.EncodeToString(
			[]byte(strings.ReplaceAll(s, "\x00", "\ufffd")))
	}
	var elements []json.RawMessage
	if v[0] == '[' && json.Unmarshal(v, &elements) == nil {
		for _, e := range elements {
			if string(bytes.TrimSpace(e)) == `"raw"` {
				return says + " raw"
			}
		}
	}
	return says
}

// memberV returns the value of the object's member "v". It returns false if the object has no such
// member or several. A name with an escape, such as "\u0076", is another name.
func memberV(doc []byte) (json.RawMessage, bool) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	var found []json.RawMessage
	for dec.More() {
		before := dec.InputOffset()
		if _, err := dec.Token(); err != nil {
			return nil, false
		}
		key := bytes.TrimLeft(doc[before:dec.InputOffset()], " \t\r\n,")
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, false
		}
		if string(key) == `"v"` {
			found = append(found, v)
		}
	}
	if len(found) != 1 {
		return nil, false
	}
	return found[0], true
}

func nesting(doc []byte) int {
	deepest, depth, text := 0, 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case c == '"':
			text = !text
		case text && c == '\\':
			i++
		case !text && (c == '[' || c == '{'):
			depth++
			deepest = max(deepest, depth)
		case !text && (c == ']' || c == '}'):
			depth--
		}
	}
	return deepest
}

func TestJSONIsReadAsGoReadsIt(t *testing.T) {
	t.Parallel()
	docs := []string{
		``, ` `, `{}`, ` { } `, `[]`, `null`, `true`, `false`, `nul`, `nulll`, `tru`, `"`,
		`""`, `"a`, `{`, `[`, `}`, `[1,]`, `[,1]`, `[1 2]`, `{"a"}`, `{"a":}`,
		`{"a":1,}`, `{,}`, `{1:2}`,
		`{"v":1}`, `{"v":1,"v":2}`, `{"V":1}`, `{"\u0076":1}`, `{"v" : 1 , "w":{"v":2}}`,
		`{"w":{"v":2},"v":3}`, `{"vv":1}`, `{"":1}`, `[{"v":1}]`, `{"v":null}`,
		`{"v":0}`, `{"v":-0}`, `{"v":01}`, `{"v":-}`, `{"v":+1}`, `{"v":1.}`, `{"v":.5}`,
		`{"v":1.5}`, `{"v":1e5}`, `{"v":1e}`, `{"v":1E+5}`, `{"v":1e-}`,
		`{"v":0x10}`, `{"v":1 }`,
		`{"v":9223372036854775807}`, `{"v":9223372036854775808}`,
		`{"v":-9223372036854775808}`, `{"v":-9223372036854775809}`,
		`{"v":92233720368547758070}`, `{"v":18446744073709551617}`,
		`{"v":"\"\\\/\b\f\n\r\t"}`, `{"v":"\a"}`, `{"v":"\u12"}`, `{"v":"\u12g4"}`,
		`{"v":"\u00e9\u20ac\uFFFF"}`, `{"v":"\ud83d\ude00"}`, `{"v":"\ud83d"}`,
		`{"v":"\ud83dx"}`, `{"v":"\ude00"}`,
		`{"v":"\ud83d\ud83d\ude00"}`, `{"v":"\ud83d\u0041"}`, `{"v":"\u0000"}`, `{"v":"\`,
		`{"v":"\u`, `{"v":"\ud83d\`, "{\"v\":\"\t\"}", "{\"v\":\"\x7f\"}",
		"{\"v\":\"\x00\"}", "{\"v\":\"\xff\"}",
		`{"v":["raw"]}`, `{"v":["x", "raw" ]}`, `{"v":["rawr"]}`, `{"v":[["raw"]]}`,
		`{"v":[]}`, `{"v":"raw"}`, `{"v":[{"a":"raw"},[],"raw",1]}`,
		strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat("[", 33) +
			strings.Repeat("]", 33), strings.Repeat(`{"v":`, 32) + "1" +
			strings.Repeat("}", 32), strings.Repeat("[", 100_000),
		`{"jsonrpc":"2.0","id":17,"error":{"code":-32007,"message":"tls.Handshake: é","data":{"kind":"verify","v":[1,2,{"x":null}]}},"v":"é"}`,
		"\xef\xbb\xbf{}", "{}\v", "{}\x00",
	}
	// Further documents are copies of these in which one or two bytes are changed, lost or
	// doubled.
	const seed = 20261123
	random := rand.New(rand.NewPCG(seed, seed))
	pool := []byte(`{}[]",:\u0v1-+.eE tfn` + "\x00\x1f\x80\xc3\xed\xf0\xff")
	given := len(docs)
	for range 40_000 {
		d := []byte(docs[random.IntN(given)])
		if len(d) == 0 || len(d) > 500 {
			continue
		}
		for range 1 + random.IntN(2) {
			switch i := random.IntN(len(d)); random.IntN(3) {
			case 0:
				d[i] = pool[random.IntN(len(pool))]
			case 1:
				d = append(d[:i:i], d[i+1:]...)
			case 2:
				d = append(d[:i+1:i+1], d[i:]...)
			}
			if len(d) == 0 {
				break
			}
		}
		docs = append(docs, string(d))
	}

	exe := compile(t, asan.cc, "jsoncheck", append(append([]string{"-I" + sources}, strict...),
		append(asan.flags, "testdata/jsoncheck.c", sources+"/json.c",
			sources+"/text.c")...)...)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asan.env...)
	cmd.Stdin = strings.NewReader(strings.Join(docs, "\n") + "\n")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(docs) {
		t.Fatalf("jsoncheck has printed %d answers for %d documents", len(lines), len(docs))
	}
	yes, wrong := 0, 0
	for i, doc := range docs {
		want := readAsGo([]byte(doc))
		if want != "no" {
			yes++
		}
		if lines[i] != want {
			if wrong++; wrong <= 10 {
				t.Errorf("%.200q is read as %.200q; want %.200q", doc,
					lines[i], want)
			}
		}
	}
	if yes < 1000 || yes > len(docs)-1000 {
		t.Errorf("%d of %d documents are valid; want at least 1000 valid and 1000 invalid",
			yes, len(docs))
	}
}
