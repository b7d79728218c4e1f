package rpc_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

const hello = `{"jsonrpc":"2.0","id":"hello","method":"tls.Hello","params":[1,["raw"]]}`

func TestRawRequests(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	h := string(p.client(p.echo()))
	for i, params := range []string{`[` + h + `]`, `{"handle":` + h + `}`} {
		data := fmt.Sprintf("{\"not\": json\n\x00\xff%d\r\n", i)
		p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":%s,"raw":%d}`+"\n%s", params, len(data), data))
		p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"result":%d}`, len(data)))
		if got := p.ok("tls.Read", h2n(h), 100); got != base64.StdEncoding.EncodeToString([]byte(data)) {
			t.Errorf("got %s", got)
		}
	}
	t.Run("of no bytes", func(t *testing.T) {
		p.line(`{"jsonrpc":"2.0","id":2,"method":"tls.Write","params":[` + h + `],"raw":0}`)
		p.expect(`{"jsonrpc":"2.0","id":2,"result":0}`)
	})
	t.Run("of the largest blob", func(t *testing.T) {
		p := newPeer(t)
		h := string(p.client(p.echo()))
		data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20)
		go p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":2,"method":"tls.Write","params":[%s],"raw":%d}`+"\n%s%s\n", h, len(data), data, hello))
		got := 0
		for p.expect(`{"jsonrpc":"2.0","id":"hello","result":...}`); got < len(data); {
			p.begin("tls.Read", h2n(h), 1<<24)
			r := p.response()
			if fmt.Sprint(r.ID) == "2" {
				r = p.response()
			}
			if r.Raw == nil {
				t.Fatalf("%+v", r)
			}
			part := p.raw(*r.Raw)
			if part != string(data[got:got+len(part)]) {
				t.Fatal("other data came back")
			}
			got += len(part)
		}
	})
}

// h2n makes a number of a handle that was a text.
func h2n(h string) (n int) { fmt.Sscan(h, &n); return }

// TestRawBytesAreReadThoughTheRequestIsBad, so that the next message is found.
func TestRawBytesAreReadThoughTheRequestIsBad(t *testing.T) {
	t.Parallel()
	const error = `{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":...,"data":{"kind":"params","op":...}}}`
	for name, c := range map[string]struct{ line, want string }{
		"method without a blob":    {`{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,1],"raw":9}`, error},
		"method without a blob, 0": {`{"jsonrpc":"2.0","id":1,"method":"tls.Backend","raw":0}`, error},
		"base64 as well":           {`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1,"aGVsbG8="],"raw":9}`, error},
		"null as well":             {`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":{"handle":1,"data":null},"raw":9}`, error},
		"handle missing":           {`{"jsonrpc":"2.0","id":1,"method":"tls.Write","raw":9}`, error},
		"no such method":           {`{"jsonrpc":"2.0","id":1,"method":"nothing","raw":9}`, `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":...,"data":{"kind":"params"}}}`},
		"no such handle":           {`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":9}`, `{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":...,"data":{"kind":"handle","op":"tls.Write","handle":1}}}`},
		"no jsonrpc":               {`{"id":1,"method":"tls.Write","params":[1],"raw":9}`, invalidRequest},
		"bad id":                   {`{"jsonrpc":"2.0","id":1.5,"method":"tls.Write","params":[1],"raw":9}`, invalidRequest},
		"no method":                {`{"jsonrpc":"2.0","id":1,"raw":9}`, invalidRequest},
		"bad params":               {`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":7,"raw":9}`, invalidRequest},
		"notification":             {`{"jsonrpc":"2.0","method":"tls.Write","params":[1],"raw":9}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			raw := "{}\n[]\n\"x\""
			if strings.Contains(c.line, `"raw":0`) {
				raw = ""
			}
			p.send(c.line + "\n" + raw)
			if c.want != "" {
				p.expect(c.want)
			}
			p.silent()
		})
	}
}

func TestRawInABatch(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"5", "0", "-1", `"x"`, "null"} {
		p := newPeer(t)
		p.line(`[{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":` + raw + `},{"jsonrpc":"2.0","id":2,"method":"tls.Backend"}]`)
		p.expect(`[` + invalidRequest + `,{"jsonrpc":"2.0","id":2,"result":"openssl"}]`)
		p.silent()
	}
}

// TestRawWithoutANumberEndsTheConnection: where the next message starts is unknown.
func TestRawWithoutANumberEndsTheConnection(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"-1", "16777217", "1.0", "1e3", `"5"`, "null", "true", "[]", "{}", "123456789012345678901234567890"} {
		t.Run(raw, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			p.client(p.echo())
			// In one piece: after the first line there may be nobody to take the second.
			p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":` + raw + "}\n" +
				`{"jsonrpc":"2.0","id":2,"method":"tls.Backend"}` + "\n")
			p.expect(invalidRequest)
			p.ended()
			if err := p.over(); err == nil {
				t.Error("Serve returned no error")
			}
		})
	}
}

func TestRawBytesThatNeverComeEndTheSession(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.client(p.echo())
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":10}` + "\n12345")
	p.conn.CloseWrite()
	p.ended()
	if err := p.over(); err == nil {
		t.Error("Serve returned no error")
	}
}

func TestRawAnswersOnlyAfterHello(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	h := p.client(p.echo())
	write := func() {
		p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[` + string(h) + `],"raw":5}` + "\nhello")
		p.expect(`{"jsonrpc":"2.0","id":1,"result":5}`)
	}
	write()
	if got := p.ok("tls.Read", h, 100); got != "aGVsbG8=" {
		t.Errorf("before Hello: %s", got)
	}
	p.ok("tls.Hello", 1, []string{"other"})
	write()
	if got := p.ok("tls.Read", h, 100); got != "aGVsbG8=" {
		t.Errorf("after a Hello that does not ask for it: %s", got)
	}
	p.line(hello)
	p.expect(`{"jsonrpc":"2.0","id":"hello","result":{"version":1,"capabilities":["raw"],"server":{"name":"tlsd","version":"1.2.3-test","pid":...}}}`)
	write()
	p.line(`{"jsonrpc":"2.0","id":3,"method":"tls.Read","params":[` + string(h) + `,100]}`)
	p.expect(`{"jsonrpc":"2.0","id":3,"result":null,"raw":5}`)
	if got := p.raw(5); got != "hello" {
		t.Errorf("raw bytes %q", got)
	}
	t.Run("not in a batch", func(t *testing.T) {
		write()
		p.line(`[{"jsonrpc":"2.0","id":4,"method":"tls.Read","params":[` + string(h) + `,100]}]`)
		p.expect(`[{"jsonrpc":"2.0","id":4,"result":"aGVsbG8="}]`)
	})
	t.Run("not for other results", func(t *testing.T) {
		p.line(`{"jsonrpc":"2.0","id":5,"method":"tls.PeerCertSubject","params":[` + string(h) + `]}`)
		p.expect(`{"jsonrpc":"2.0","id":5,"result":"/CN=localhost"}`)
	})
	t.Run("not for errors", func(t *testing.T) {
		p.line(`{"jsonrpc":"2.0","id":6,"method":"tls.Read","params":[99,100]}`)
		p.expect(`{"jsonrpc":"2.0","id":6,"error":{"code":-32001,"message":...,"data":{"kind":"handle","op":"tls.Read","handle":99}}}`)
	})
}
