package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tlsd/rpc/wire"
)

// parseCalls makes calls from the words of a command line. "--" separates the calls, and the paths
// of files become absolute.
func TestWordsBecomeCalls(t *testing.T) {
	t.Parallel()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, []byte("of a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	type want struct {
		method string
		args   []any
		data   string
	}
	for _, tt := range []struct {
		words []string
		want  []want
	}{
		{[]string{"Backend"}, []want{{"tls.Backend", nil, ""}}},
		{[]string{"tls.Backend"}, []want{{"tls.Backend", nil, ""}}},
		{[]string{"rpc.discover"}, []want{{"rpc.discover", nil, ""}}},
		{[]string{"NewClient", "example.com", "443"},
			[]want{{"tls.NewClient", []any{"example.com", int64(443)}, ""}}},
		{[]string{"NewClient", "::1", "-7"},
			[]want{{"tls.NewClient", []any{"::1", int64(-7)}, ""}}},
		{[]string{"Version"}, []want{{"tls.Version", nil, ""}}},
		{[]string{"Version", "2147483647"},
			[]want{{"tls.Version", []any{int64(2147483647)}, ""}}},
		{[]string{"SetCaBundle", "ca.pem"},
			[]want{{"tls.SetCaBundle", []any{wd + "/ca.pem"}, ""}}},
		{[]string{"SetCaBundle", ""}, []want{{"tls.SetCaBundle", []any{""}, ""}}},
		{[]string{"NewServerContext", "/a.crt", "../b.key"},
			[]want{{"tls.NewServerContext",
				[]any{"/a.crt", filepath.Dir(wd) + "/b.key"}, ""}}},
		{[]string{"Write", "1", "text\r\n"},
			[]want{{"tls.Write", []any{int64(1)}, "text\r\n"}}},
		{[]string{"Write", "1", ""}, []want{{"tls.Write", []any{int64(1)}, ""}}},
		{[]string{"Write", "1", "\xff"}, []want{{"tls.Write", []any{int64(1)}, "\xff"}}},
		{[]string{"Write", "1", "@" + data},
			[]want{{"tls.Write", []any{int64(1)}, "of a file\n"}}},
		{[]string{"Write", "1", "base64:AP8="},
			[]want{{"tls.Write", []any{int64(1)}, "\x00\xff"}}},
		{[]string{"Write", "1", "text:@x"}, []want{{"tls.Write", []any{int64(1)}, "@x"}}},
		{[]string{"Write", "1", "text:text:"},
			[]want{{"tls.Write", []any{int64(1)}, "text:"}}},
		{[]string{"Write", "1", "-"},
			[]want{{"tls.Write", []any{int64(1)}, "of standard input"}}},
		{[]string{"Handshake", "1", "--", "Write", "1", "x", "--", "Read", "1", "9"},
			[]want{{"tls.Handshake", []any{int64(1)}, ""},
				{"tls.Write", []any{int64(1)}, "x"},
				{"tls.Read", []any{int64(1), int64(9)}, ""}}},
	} {
		stdin := func() ([]byte, error) { return []byte("of standard input"), nil }
		got, err := parseCalls(tt.words, source{stdin: stdin})
		if err != nil || len(got) != len(tt.want) {
			t.Errorf("%q: the words become %d calls, %v; want %d calls", tt.words,
				len(got), err, len(tt.want))
			continue
		}
		for i, w := range tt.want {
			g := got[i]
			if g.name != w.method || !reflect.DeepEqual(g.args, w.args) ||
				string(g.data) != w.data {
				t.Errorf("%q: got %s %q %q, want %+v", tt.words, g.name,
					g.args, g.data, w)
			}
			if hasBlob := w.method == "tls.Write"; (g.data != nil) != hasBlob {
				t.Errorf("%q: want data for tls.Write only; data is nil: %v",
					tt.words, g.data == nil)
			}
		}
	}
}

// If the words of a command line do not make a valid call, the error names the wrong argument, and
// says what is wanted.
func TestWordsThatAreNoCallAreExplained(t *testing.T) {
	t.Parallel()
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, wire.MaxBlob+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ words, why string }{
		{"", "a method is missing"},
		{"Backend --", "a method is missing"},
		{"-- Backend", "a method is missing"},
		{"Backend -- -- Backend", "a method is missing"},
		{"Nonsense", `no method "Nonsense"; tlsshim call --help lists the methods`},
		{"tls.tls.Read 1 1", `no method "tls.tls.Read"`},
		{"newclient", `no method "newclient"; did you mean NewClient?`},
		{"TLS.READ 1 1", `did you mean Read?`},
		{"Backend 1", `tls.Backend: one argument too many, "1"; want Backend`},
		{"Version 1 2", `one argument too many, "2"; want Version [handle]`},
		{"NewClient h", "tls.NewClient: port is missing; want NewClient host port"},
		{"NewClient h https", `tls.NewClient: port: "https" is not a number`},
		{"NewClient h 443.0", `port: "443.0" is not a number`},
		{"NewClient h 99999999999999999999", "port: 99999999999999999999 is out of range"},
		{"NewClient \xff 1", `host: "\xff" is not UTF-8`},
		{"SetCaBundle \xff", "path: "},
		{"Close 0", "handle: 0 is no handle; handles are 1 to 2147483647"},
		{"Close -1", "-1 is no handle"},
		{"Close 2147483648", "2147483648 is no handle"},
		{"Close 4294967297", "4294967297 is no handle"},
		{"Write 1", "data is missing"},
		{"Write 1 base64:AP8", "data: base64: illegal base64"},
		{"Write 1 @/nonexistent/file", "data: open /nonexistent/file: no such file"},
		{"Write 1 @" + large, "data: more than 16777216 bytes"},
		{"Write 1 - -- Write 1 -", "data: - is standard input: only tlsshim call"},
	} {
		_, err := parseCalls(strings.Fields(tt.words),
			source{stdin: func() ([]byte, error) { return []byte{}, nil }})
		if err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%.60q: error %v, want %q in it", tt.words, err, tt.why)
		}
	}
	if _, err := parseCalls([]string{"NewServerContext", "", "k"}, source{}); err == nil ||
		!strings.Contains(err.Error(), "the path is empty") {
		t.Errorf("an empty path: error %v; want \"the path is empty\" in it", err)
	}
	broken := errors.New("input/output error")
	src := source{stdin: func() ([]byte, error) { return nil, broken }}
	if _, err := parseCalls([]string{"Write", "1", "-"}, src); !errors.Is(err, broken) {
		t.Errorf("broken standard input: error %v, want %v", err, broken)
	}
}

func TestLinesAreSplitAsInAShell(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line string
		want []string
	}{
		{"a b\tc", []string{"a", "b", "c"}},
		{"  a  ", []string{"a"}},
		{`'a b' 'c\n'`, []string{"a b", `c\n`}},
		{`"a b\r\n\t\0\e\x41\\\""`, []string{"a b\r\n\t\x00\x1bA\\\""}},
		{`$'it\'s\n'`, []string{"it's\n"}},
		{`a'b'"c"$'d'e`, []string{"abcde"}},
		{`'' "" x`, []string{"", "", "x"}},
		{`a\ b \$ $x #`, []string{"a b", "$", "$x", "#"}},
		{`base64:AP8= -- @f`, []string{"base64:AP8=", "--", "@f"}},
		{`\`, []string{`\`}},
	} {
		if got, err := split(tt.line); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %q, %v; want %q", tt.line, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ line, why string }{
		{`'a`, "has no end"},
		{`"a`, "has no end"},
		{`"a\`, "has no end"},
		{`$'a`, "has no end"},
		{`"\q"`, `\q is not known`},
		{`"\x4"`, "two hexadecimal digits"},
		{`"\xzz"`, "two hexadecimal digits"},
		{`"\x`, "two hexadecimal digits"},
	} {
		if got, err := split(tt.line); err == nil ||
			!strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: got %q, %v; want an error with %q", tt.line, got, err, tt.why)
		}
	}
}

// tlsshim writes control characters of peers as visible text. Only the bytes of Read are written
// unchanged.
func TestOutputCannotForgeLinesOrMoveTheCursor(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/CN=exämple ✓":       "/CN=exämple ✓",
		"a\nb\r\x1b[2J\x7f":   `a\x0ab\x0d\x1b[2J\x7f`,
		"\u0085\u202egnp.":    `\x85\u202egnp.`,
		"\xff\xfe ok\ufffd":   `\xff\xfe ok` + "\ufffd",
		"":                    "",
		"tab\tand\x00nothing": `tab\x09and\x00nothing`,
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	var out bytes.Buffer
	p := printer{&command{stdout: &out}}
	if err := p.result(&methods[0], []byte("raw\x1b\xff")); err != nil ||
		out.String() != "raw\x1b\xff" {
		t.Errorf("got %q, %v; want the bytes as they are", out.String(), err)
	}
	for in, want := range map[string]string{
		"7":                  "7\n",
		`"a\nb"`:             `a\x0ab` + "\n",
		"{\"a\":\"\u0085\"}": "{\n  \"a\": \"\\x85\"\n}\n",
		`{"a":"\u001b[2J"}`:  "{\n  \"a\": \"\\u001b[2J\"\n}\n",
	} {
		out.Reset()
		if err := p.result(&methods[0], json.RawMessage(in)); err != nil ||
			out.String() != want {
			t.Errorf("%s: got %q, %v; want %q", in, out.String(), err, want)
		}
	}
}
