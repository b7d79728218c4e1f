package rpc_test

import (
	"fmt"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// A wrong parameter is refused. The error names the parameter, and says what is wrong.
func TestParametersAreStrict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, params, says string }{
		// Number and names.
		{"tls.NewClient", ``, "host is missing; takes 2 parameters (host, port)"},
		{"tls.NewClient", `[]`, "host is missing"},
		{"tls.NewClient", `{}`, "host is missing"},
		{"tls.NewClient", `["a"]`, "port is missing"},
		{"tls.NewClient", `{"port":1}`, "host is missing"},
		{"tls.NewClient", `["a",1,2]`, "takes 2 parameters (host, port), got 3"},
		{"tls.NewClient", `{"host":"a","port":1,"x":2}`, `unknown parameter "x"; takes 2`},
		{"tls.NewClient", `{"Host":"a","port":1}`, `unknown parameter "Host"`},
		{"tls.NewClient", `{"host":"a","port":1,"host":"b"}`, "host: is given twice"},
		{"tls.NewClient", `{"host":"a","host":"a","port":1}`, "host: is given twice"},
		{"tls.NewClient", `{"host":"a","ho\u0073t":"b","port":1}`, "host: is given twice"},
		{"tls.Backend", `[1]`, "takes no parameters, got 1"},
		{"tls.Backend", `{"a":1}`, `unknown parameter "a"; takes no parameters`},
		{"tls.Backend", `[null]`, "takes no parameters, got 1"},
		{"tls.Version", `[1,2]`, "takes 1 parameter (handle?), got 2"},
		{"tls.Version", `[null]`, "handle null: must be an integer"},
		{"tls.Version", `{"handle":null}`, "handle null: must be an integer"},
		{"tls.Version", `{"handle":null,"handle":null}`, "handle: is given twice"},
		// Integers.
		{"tls.NewClient", `["a",443.0]`, "port 443.0: must be an integer"},
		{"tls.NewClient", `["a",4.43e2]`, "port 4.43e2: must be an integer"},
		{"tls.NewClient", `["a",443E0]`, "port 443E0: must be an integer"},
		{"tls.NewClient", `["a","443"]`, `port "443": must be an integer`},
		{"tls.NewClient", `["a",null]`, "port null: must be an integer"},
		{"tls.NewClient", `["a",true]`, "port true: must be an integer"},
		{"tls.NewClient", `["a",[443]]`, "port [443]: must be an integer"},
		{"tls.NewClient", `["a",{}]`, "port {}: must be an integer"},
		{"tls.NewClient", `["a",0]`, "port 0: must be between 1 and 65535"},
		{"tls.NewClient", `["a",-0]`, "port -0: must be between 1 and 65535"},
		{"tls.NewClient", `["a",65536]`, "port 65536: must be between 1 and 65535"},
		{"tls.NewClient", `["a",-1]`, "port -1: must be between"},
		{"tls.NewClient", `["a",123456789012345678901234567890]`, "must be between"},
		{"tls.NewClient", `["a",` + strings.Repeat("9", 1000) + `]`, "99…: must be between"},
		{"tls.Read", `[1,0]`, "maxBytes 0: must be between 1 and 16777216"},
		{"tls.Read", `[1,16777217]`, "maxBytes 16777217: must be between"},
		{"tls.Read", `[0,1]`, "handle 0: must be between 1 and 2147483647"},
		{"tls.Read", `[-1,1]`, "handle -1: must be between"},
		{"tls.Read", `[2147483648,1]`, "handle 2147483648: must be between"},
		{"tls.SetInsecureSkipVerify", `[1,2]`, "on 2: must be between 0 and 1"},
		{"tls.SetInsecureSkipVerify", `[1,true]`, "on true: must be an integer"},
		{"tls.CloseServerContext", `[0]`, "ctxHandle 0: must be between"},
		{"tls.CloseServerContext", `{"handle":1}`, `unknown parameter "handle"; takes 1 parameter (ctxHandle)`},
		// Strings.
		{"tls.NewClient", `[1,1]`, "host 1: must be a string"},
		{"tls.NewClient", `[null,1]`, "host null: must be a string"},
		{"tls.NewClient", `["",1]`, "host: must not be empty"},
		{"tls.NewClient", `["` + strings.Repeat("a", 256) + `",1]`, "host: has 256 bytes, at most 255 are allowed"},
		{"tls.NewClient", `["a\u0000b",1]`, "must not contain a NUL"},
		{"tls.SetCaBundle", `["/` + strings.Repeat("a", 4095) + `"]`, "path: has 4096 bytes, at most 4095"},
		{"tls.SetCaBundle", `["/a\u0000"]`, "path"},
		{"tls.NewServerContext", `["/a",["/b"]]`, `keyFile ["/b"]: must be a string`},
		// Blobs.
		{"tls.Write", `[1]`, "data is missing"},
		{"tls.Write", `[1,null]`, "data: must be a base64 string"},
		{"tls.Write", `[1,5]`, "data: must be a base64 string"},
		{"tls.Write", `[1,["aGVsbG8="]]`, "data: must be a base64 string"},
		{"tls.Write", `[1,"aGVsbG8"]`, "with padding"},
		{"tls.Write", `[1,"aGVsbG8=="]`, "base64"},
		{"tls.Write", `[1,"aGVsbG8=x"]`, "base64"},
		{"tls.Write", `[1,"aGVsbG9="]`, "base64"}, // the unused bits are not zero
		{"tls.Write", `[1,"aGVs bG8="]`, "base64"},
		{"tls.Write", `[1,"aGVs\nbG8="]`, "base64"},
		{"tls.Write", `[1,"aGVsbG8=\r\n"]`, "base64"},
		{"tls.Write", `[1,"_-8="]`, "base64"}, // the alphabet for URLs, RFC 4648 section 5
		{"tls.Write", `[1,"="]`, "base64"},
		// Other parameters.
		{"tls.Hello", `[]`, "version is missing"},
		{"tls.Hello", `[0]`, "version 0: must be between"},
		{"tls.Hello", `[1,"raw"]`, "capabilities \"raw\": must be an array of strings"},
		{"tls.Hello", `[1,["raw",1]]`, "must be an array of strings"},
		{"tls.Hello", `[1,["raw",null]]`, "must be an array of strings"},
		{"tls.Hello", `[1,null]`, "capabilities null"},
		{"tls.Hello", `[1,[],0]`, "firstHandle 0"},
		{"tls.Hello", `[1,[],2147483648]`, "firstHandle 2147483648"},
		{"$/cancelRequest", `[]`, "id is missing"},
		{"$/cancelRequest", `[1.5]`, "id 1.5: must be a string, an integer or null"},
		{"$/cancelRequest", `[true]`, "id true"},
		{"$/cancelRequest", `[[1]]`, "id [1]"},
	} {
		name := c.method + c.params
		if len(name) > 60 {
			name = name[:60]
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t)
			params := ""
			if c.params != "" {
				params = `,"params":` + c.params
			}
			p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q%s}`, c.method, params))
			r := p.response()
			if r.Error == nil {
				t.Fatalf("the call returns %v, want an error", r.Result)
			}
			if r.Error.Code != -32602 || r.Error.Data == nil ||
				r.Error.Data.Kind != "params" || r.Error.Data.Op != c.method {
				t.Errorf("the error has code %d, data %+v; want -32602, params",
					r.Error.Code, r.Error.Data)
			}
			if !strings.HasPrefix(r.Error.Message, c.method+": ") ||
				!strings.Contains(r.Error.Message, c.says) {
				t.Errorf("the message is %q, want one that says %q",
					r.Error.Message, c.says)
			}
			if len(r.Error.Message) > 300 {
				t.Errorf("the message has %d bytes, want at most 300",
					len(r.Error.Message))
			}
			if got := p.ok("tls.LastError"); got != r.Error.Message {
				t.Errorf("LastError is %q, want the message of the answer, %q", got,
					r.Error.Message)
			}
		})
	}
}

// An error about bad base64 does not quote the data, because it may be secret.
func TestPayloadIsNotShown(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	for _, data := range []string{"c2VjcmV0!", "c2VjcmV0c2VjcmV0c"} {
		e := p.fails("params", "tls.Write", 1, data)
		if strings.Contains(e.Message, "c2Vj") {
			t.Errorf("the error shows the data: %s", e.Message)
		}
	}
}

// Values at the edges of the ranges are accepted, by position and by name. An error of another kind
// than params shows that tlsd has accepted the parameters.
func TestGoodParameters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, params, want string }{
		{"tls.Backend", `[]`, `"result":"openssl"`},
		{"tls.Backend", `{}`, `"result":"openssl"`},
		{"tls.Version", `[]`, `"result":"crypto/tls stand-in"`},
		{"tls.Version", `{}`, `"result":"crypto/tls stand-in"`},
		{"tls.Version", `{"handle":2147483647}`, `"kind":"handle"`},
		{"tls.Version", `[2147483647]`, `"kind":"handle"`},
		{"tls.Read", `[1,16777216]`, `"kind":"handle"`},
		{"tls.Read", `{"maxBytes":1,"handle":1}`, `"kind":"handle"`},
		{"tls.Read", `{ "maxBytes" : 1 , "handle" : 1 }`, `"kind":"handle"`},
		{"tls.Write", `[1,""]`, `"kind":"handle"`},
		{"tls.Write", `{"data":"aGVs\u0062G8=","handle":1}`, `"kind":"handle"`},
		{"tls.NewClient", `["127.0.0.1",1]`, `"kind":"connect"`},
		{"tls.SetCaBundle", `["/` + strings.Repeat("a", 4094) + `"]`, `"kind":"file"`},
		{"tls.Accept", `{"host":"a","port":65535,"ctxHandle":1}`, `"kind":"handle"`},
		{"tls.Hello", `[2147483647]`, `"version":1,"capabilities":[]`},
		{"tls.Hello", `{"version":1,"firstHandle":2147483647}`, `"version":1`},
		{"tls.Hello", `[1,["x","raw","ring","y"]]`, `"capabilities":[]`},
		{"$/cancelRequest", `[null]`, `"result":null`},
		{"$/cancelRequest", `{"id":"x"}`, `"result":null`},
		{"$/cancelRequest", `[123456789012345678901234567890]`, `"result":null`},
	} {
		name := c.method + c.params
		if len(name) > 60 {
			name = name[:60]
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t)
			p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, c.method, c.params))
			if got := p.answer(); !strings.Contains(got, c.want) {
				t.Errorf("got %.300s, want %s", got, c.want)
			}
		})
	}
}

// A call that would make a handle uses up the handle's number even if it fails. This includes calls
// with wrong parameters, which never reach the session.
func TestFailedCallsTakeTheirNumber(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.fails("params", "tls.NewClient", "localhost", 0)
	p.fails("params", "tls.NewServerContext")
	p.fails("params", "tls.Accept", 1, "localhost", "x")
	p.fails("params", "tls.Read", 1, 0) // a Read makes no handle, so it uses up no number
	p.line(`{"jsonrpc":"2.0","method":"tls.NewClient","params":[]}`)
	p.fails("connect", "tls.NewClient", "127.0.0.1", testkit.Port(t))
	if h := p.server(); h != "6" {
		t.Errorf("got handle %s, want 6: failed calls have taken 1 to 5", h)
	}
	p.fails("state", "tls.Hello", 1, []string{}, 100)
}

// tls.Hello can set the number of the first handle, as long as no handle exists.
func TestFirstHandle(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.ok("tls.Hello", 1, []string{}, 100)
	p.ok("tls.Hello", 1, []string{}, 41) // no handle exists yet
	if h := p.server(); h != "41" {
		t.Errorf("got handle %s, want 41", h)
	}
	e := p.fails("state", "tls.Hello", 1, []string{"raw"}, 7)
	if e.Data.Op != "tls.Hello" || !strings.HasPrefix(e.Message, "tls.Hello: ") {
		t.Errorf("the error has op %q and message %q; want tls.Hello in both", e.Data.Op,
			e.Message)
	}
	if got := p.ok("tls.LastError"); got != e.Message {
		t.Errorf("LastError is %q, want the message of the answer, %q", got, e.Message)
	}
	p.fails("handle", "tls.Close", 40)
}
