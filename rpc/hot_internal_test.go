package rpc

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseHotTakesExactlyItsForms(t *testing.T) {
	t.Parallel()
	const start = `{"jsonrpc":"2.0","id":`
	for _, c := range []struct {
		line string
		want string // "" for the long way
	}{
		{start + `7,"method":"tls.Write","params":[3],"raw":12}`, "write 7 3 12"},
		{start + `0,"method":"tls.Write","params":[3],"raw":0}`, "write 0 3 0"},
		{start + `999999999,"method":"tls.Read","params":[999999999,16777216]}`, "read 999999999 999999999 16777216"},
		{start + `7,"method":"tls.Read","params":[3,1]}`, "read 7 3 1"},
		{start + `7,"method":"tls.Read","params":[3,0]}`, ""},
		{start + `7,"method":"tls.Read","params":[3,16777217]}`, ""},
		{start + `7,"method":"tls.Read","params":[0,1]}`, ""},
		{start + `7,"method":"tls.Read","params":[3,01]}`, ""},
		{start + `07,"method":"tls.Read","params":[3,1]}`, ""},
		{start + `-7,"method":"tls.Read","params":[3,1]}`, ""},
		{start + `"7","method":"tls.Read","params":[3,1]}`, ""},
		{start + `1000000000,"method":"tls.Read","params":[3,1]}`, ""},
		{start + `7,"method":"tls.Read","params":[3,1]} `, ""},
		{start + `7,"method":"tls.Read","params":[3, 1]}`, ""},
		{start + `7,"method":"tls.Read","params":[3,1],"raw":1}`, ""},
		{start + `7,"method":"tls.Read","params":[3]}`, ""},
		{start + `7,"method":"tls.Write","params":[3]}`, ""},
		{start + `7,"method":"tls.Write","params":[3],"raw":16777217}`, ""},
		{start + `7,"method":"tls.Write","params":[3],"raw":-1}`, ""},
		{start + `7,"method":"tls.Write","params":[3,"YQ=="]}`, ""},
		{start + `7,"method":"tls.Backend"}`, ""},
		{start, ""},
		{"", ""},
	} {
		got := ""
		if h, ok := parseHot([]byte(c.line)); ok {
			got = fmt.Sprintf("%s %s %d %d", map[bool]string{true: "write", false: "read"}[h.write], h.id, h.handle, h.n)
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.line, got, c.want)
		}
	}
}

// FuzzParseHot holds the short way to the long one: what it takes means the same there.
func FuzzParseHot(f *testing.F) {
	f.Add(`{"jsonrpc":"2.0","id":7,"method":"tls.Write","params":[3],"raw":12}`)
	f.Add(`{"jsonrpc":"2.0","id":7,"method":"tls.Read","params":[3,4096]}`)
	f.Fuzz(func(t *testing.T, line string) {
		h, ok := parseHot([]byte(line))
		if !ok {
			return
		}
		c, raw, why := parse([]byte(line))
		if why != "" || string(c.id) != string(h.id) {
			t.Fatalf("%s: the long way says %q, id %s; the short way id %s", line, why, c.id, h.id)
		}
		if h.write {
			c.raw = make([]byte, raw)
		}
		m := methods[c.method]
		a, err := m.decode(c)
		if err != nil {
			t.Fatalf("%s: the long way says %v", line, err)
		}
		n := len(c.raw)
		if !h.write {
			n = a.int(1)
		}
		if a.handle(0) != h.handle || n != h.n || strings.HasSuffix(c.method, "Write") != h.write {
			t.Fatalf("%s: the short way has handle %d and %d", line, h.handle, h.n)
		}
	})
}
