package rpc

import (
	"fmt"
	"testing"
)

func TestParsePlainTakesExactlyItsForm(t *testing.T) {
	t.Parallel()
	const start = `{"jsonrpc":"2.0","id":`
	for _, c := range []struct {
		line string
		want string // "" for the long way
	}{
		{start + `7,"method":"tls.Handshake","params":[3]}`, "tls.Handshake 7 [3]"},
		{start + `0,"method":"tls.NewClient","params":["127.0.0.1",443]}`, "tls.NewClient 0 [127.0.0.1 443]"},
		{start + `7,"method":"tls.Accept","params":[3,"::1",65535]}`, "tls.Accept 7 [3 ::1 65535]"},
		{start + `7,"method":"tls.Backend","params":[]}`, "tls.Backend 7 []"},
		{start + `7,"method":"tls.Version","params":[]}`, "tls.Version 7 [<nil>]"},
		{start + `7,"method":"tls.Version","params":[3]}`, "tls.Version 7 [3]"},
		{start + `7,"method":"tls.Backend"}`, ""},
		{start + `7,"method":"tls.Handshake","params":[]}`, ""},
		{start + `7,"method":"tls.Handshake","params":[3,4]}`, ""},
		{start + `7,"method":"tls.Handshake","params":[3,]}`, ""},
		{start + `7,"method":"tls.Handshake","params":[0]}`, ""},
		{start + `7,"method":"tls.Handshake","params":["3"]}`, ""},
		{start + `7,"method":"tls.Handshake","params":[3]`, ""},
		{start + `7,"method":"tls.Handshake","params":[3]} `, ""},
		{start + `7,"method":"tls.Handshake","params":[3],"raw":1}`, ""},
		{start + `07,"method":"tls.Handshake","params":[3]}`, ""},
		{start + `"7","method":"tls.Handshake","params":[3]}`, ""},
		{start + `1000000000,"method":"tls.Handshake","params":[3]}`, ""},
		{start + `7,"method":"tls.NewClient","params":["",443]}`, ""},
		{start + `7,"method":"tls.NewClient","params":["a\u0062",443]}`, ""},
		{start + `7,"method":"tls.NewClient","params":["ä",443]}`, ""},
		{start + "7,\"method\":\"tls.NewClient\",\"params\":[\"a\x00\",443]}", ""},
		{start + `7,"method":"tls.NewClient","params":["a",65536]}`, ""},
		{start + `7,"method":"tls.NewClient","params":["a"443]}`, ""},
		{start + `7,"method":"tls.NewClient","params":["a`, ""},
		{start + `7,"method":"tls.Write","params":[3,"YQ=="]}`, ""},
		{start + `7,"method":"tls.Hello","params":[1]}`, ""},
		{start + `7,"method":"tls.Nothing","params":[3]}`, ""},
		{start, ""},
		{"", ""},
	} {
		got := ""
		if p := parsePlain([]byte(c.line)); p != nil {
			got = fmt.Sprint(p.method, " ", string(p.id), " ", p.args)
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.line, got, c.want)
		}
	}
}

// FuzzParsePlain holds the shorter way to the long one: what it takes means the same there.
func FuzzParsePlain(f *testing.F) {
	f.Add(`{"jsonrpc":"2.0","id":7,"method":"tls.NewClient","params":["localhost",443]}`)
	f.Add(`{"jsonrpc":"2.0","id":7,"method":"tls.Version","params":[]}`)
	f.Add(`{"jsonrpc":"2.0","id":7,"method":"tls.SetTimeout","params":[3,0]}`)
	f.Add(`{"jsonrpc":"2.0","id":7,"method":"tls.SetCaBundle","params":["/a/b.pem"]}`)
	f.Fuzz(func(t *testing.T, line string) {
		p := parsePlain([]byte(line))
		if p == nil {
			return
		}
		if err := syntaxError([]byte(line)); err != nil {
			t.Fatalf("%q: the long way says %v", line, err)
		}
		c, raw, why := parse([]byte(line))
		if why != "" || raw != noRaw || string(c.id) != string(p.id) || c.method != p.method {
			t.Fatalf("%q: the long way says %q, id %s, %s; the shorter one id %s, %s", line, why, c.id, c.method, p.id, p.method)
		}
		a, err := methods[c.method].decode(c)
		if err != nil || fmt.Sprintf("%#v", a) != fmt.Sprintf("%#v", p.args) {
			t.Fatalf("%q: the long way has %#v, %v; the shorter one %#v", line, a, err, p.args)
		}
	})
}
