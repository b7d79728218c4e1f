package rpc_test

import (
	"strings"
	"testing"

	"tlsd/rpc/wire"
)

// invalidRequest is the answer to JSON that is no request. parseError is the answer to a line that
// is no JSON.
const (
	invalidRequest = `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":...,"data":{"kind":"params"}}}`
	parseError     = `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":...,"data":{"kind":"params"}}}`
)

// TestSpecificationExamples has the examples of section 7 of the JSON-RPC 2.0 specification, in
// their order, with methods of tlsd. An empty want means no answer.
func TestSpecificationExamples(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, send, want string }{
		{
			"call with positional parameters",
			`{"jsonrpc": "2.0", "method": "tls.Hello", "params": [1, ["other"]], "id": 1}`,
			`{"jsonrpc":"2.0","result":{"version":1,"capabilities":[],"server":...,"timeouts":...},"id":1}`,
		},
		{
			"call with positional parameters, another id",
			`{"jsonrpc": "2.0", "method": "tls.Hello", "params": [7, []], "id": 2}`,
			`{"jsonrpc":"2.0","result":{"version":1,"capabilities":[],"server":...,"timeouts":...},"id":2}`,
		},
		{
			"call with named parameters",
			`{"jsonrpc": "2.0", "method": "tls.Hello", "params": {"version": 1, "capabilities": ["other"]}, "id": 3}`,
			`{"jsonrpc":"2.0","result":{"version":1,"capabilities":[],"server":...,"timeouts":...},"id":3}`,
		},
		{
			"call with named parameters, another order",
			`{"jsonrpc": "2.0", "method": "tls.Hello", "params": {"capabilities": ["other"], "version": 1}, "id": 4}`,
			`{"jsonrpc":"2.0","result":{"version":1,"capabilities":[],"server":...,"timeouts":...},"id":4}`,
		},
		{"notification", `{"jsonrpc": "2.0", "method": "tls.Hello", "params": [1,["other"]]}`, ``},
		{"notification of a method that is not there", `{"jsonrpc": "2.0", "method": "foobar"}`, ``},
		{
			"method that is not there",
			`{"jsonrpc": "2.0", "method": "foobar", "id": "1"}`,
			`{"jsonrpc":"2.0","error":{"code":-32601,"message":...,"data":{"kind":"params"}},"id":"1"}`,
		},
		{"invalid JSON", `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`, parseError},
		{"invalid request", `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`, invalidRequest},
		{
			"batch of invalid JSON",
			`[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method" ]`,
			parseError,
		},
		{"empty batch", `[]`, invalidRequest},
		{"invalid batch, not empty", `[1]`, `[` + invalidRequest + `]`},
		{"invalid batch", `[1,2,3]`, `[` + invalidRequest + `,` + invalidRequest + `,` + invalidRequest + `]`},
		{
			"batch",
			`[
				{"jsonrpc": "2.0", "method": "tls.Backend", "id": "1"},
				{"jsonrpc": "2.0", "method": "tls.Backend", "params": []},
				{"jsonrpc": "2.0", "method": "tls.Version", "params": {}, "id": "2"},
				{"foo": "boo"},
				{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
				{"jsonrpc": "2.0", "method": "tls.LastError", "id": "9"}
			]`,
			`[
				{"jsonrpc": "2.0", "result": "openssl", "id": "1"},
				{"jsonrpc": "2.0", "result": "crypto/tls stand-in", "id": "2"},
				` + invalidRequest + `,
				{"jsonrpc": "2.0", "error": {"code": -32601, "message": ..., "data": {"kind": "params"}}, "id": "5"},
				{"jsonrpc": "2.0", "result": ..., "id": "9"}
			]`,
		},
		{
			"batch of notifications",
			`[{"jsonrpc": "2.0", "method": "tls.Backend"},{"jsonrpc": "2.0", "method": "foobar", "params": [7]}]`,
			``,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t)
			p.line(strings.NewReplacer("\n", " ", "\t", "").Replace(c.send))
			if c.want != "" {
				p.expect(c.want)
			}
			p.silent() // no further answer comes, and the session goes on
		})
	}
}

// An id comes back exactly as it was written. An id of a wrong type is refused.
func TestIDs(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		`1`, `0`, `-1`, `-0`, `"1"`, `""`, `"a b"`, `"é\u00e9\ud83d\ude00\n"`, `null`, `9007199254740993`,
		`123456789012345678901234567890`, `-123456789012345678901234567890`, `"` + strings.Repeat("x", 100_000) + `"`,
	} {
		p := newCaller(t)
		p.line(`{"jsonrpc":"2.0","id":` + id + `,"method":"tls.Backend"}`)
		if got, want := p.answer(), `{"jsonrpc":"2.0","id":`+id+`,"result":"openssl"}`; got != want {
			t.Errorf("tlsd answers %.200s, want %.200s", got, want)
		}
	}
	for _, id := range []string{`1.5`, `1.0`, `1e3`, `1E3`, `-1.5`, `true`, `false`, `[]`, `[1]`, `{}`} {
		p := newCaller(t)
		p.line(`{"jsonrpc":"2.0","id":` + id + `,"method":"tls.Backend"}`)
		p.expect(invalidRequest)
		p.silent()
	}
}

// Two calls may have the same id. Both are answered.
func TestIDMayBeUsedTwice(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	for range 2 {
		p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}`)
	}
	for range 2 {
		p.expect(`{"jsonrpc":"2.0","id":1,"result":"openssl"}`)
	}
}

// JSON that is no request gets the answer invalidRequest, alone and in a batch. The session goes
// on.
func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		`1`, `"x"`, `null`, `true`, `1.5`, `{}`,
		`{"id":1,"method":"tls.Backend"}`,
		`{"jsonrpc":2.0,"id":1,"method":"tls.Backend"}`,
		`{"jsonrpc":"1.0","id":1,"method":"tls.Backend"}`,
		`{"jsonrpc":"2","id":1,"method":"tls.Backend"}`,
		`{"jsonrpc":null,"id":1,"method":"tls.Backend"}`,
		`{"JSONRPC":"2.0","id":1,"method":"tls.Backend"}`,
		`{"jsonrpc":"2.0","id":1}`,
		`{"jsonrpc":"2.0","id":1,"method":null}`,
		`{"jsonrpc":"2.0","id":1,"method":["tls.Backend"]}`,
		`{"jsonrpc":"2.0","id":1,"Method":"tls.Backend"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Backend","params":null}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Backend","params":1}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Backend","params":"x"}`,
		`{"jsonrpc":"2.0","id":1,"result":"openssl"}`,
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t)
			p.line(line)
			p.expect(invalidRequest)
			p.line(`[` + line + `]`)
			p.expect(`[` + invalidRequest + `]`)
			p.silent()
		})
	}
}

// A line that is no JSON in UTF-8 gets the answer parseError. The session goes on.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		`nonsense`, `{`, `}`, `[`, `]`, `"`, `{"a":1,}`, `[1,]`, `{} {}`, `{}x`, `01`, `+1`, `.5`, `tru`, `'a'`, "\x00", "{\x00}",
		"\"\t\"", "\"\xff\"", "{\"jsonrpc\":\"2.0\",\"id\":\"\xc3\",\"method\":\"tls.Backend\"}", `"\u12"`, `"\x41"`, "\ufeff{}",
		strings.Repeat("[", 20_000), strings.Repeat(`{"a":`, 20_000),
	} {
		name := line
		if len(name) > 20 {
			name = name[:20]
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t)
			p.line(line)
			p.expect(parseError)
			p.silent()
		})
	}
}

// A request may have members that JSON-RPC does not name, because section 4 of the specification
// does not forbid them. They are ignored.
func TestOtherMembersAreIgnored(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Backend","Raw":-7,"ID":2,"x":{"y":[]},"":null}`)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":"openssl"}`)
	p.line("  {\t\"jsonrpc\" : \"2.0\" , \"id\" : 2 ,\"method\" : \"tls\\u002eBackend\" , " +
		"\"params\" : [ ] }  ")
	p.expect(`{"jsonrpc":"2.0","id":2,"result":"openssl"}`)
}

// Notifications are carried out in their order. They are never answered, not even with an error.
func TestNotificationsAreCarriedOut(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	port := p.echo()
	for _, n := range []string{
		`"tls.Close","params":[99]`, `"tls.Close","params":["x"]`, `"nothing"`, `"rpc.discover"`, `"tls.Info","params":[1]`,
	} {
		p.line(`{"jsonrpc":"2.0","method":` + n + `}`)
	}
	p.silent()
	p.begin("tls.NewClient", "localhost", port)
	p.line(`{"jsonrpc":"2.0","method":"tls.Handshake","params":[1]}`)
	p.line(`{"jsonrpc":"2.0","method":"tls.Write","params":[1,"aGVsbG8="]}`)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":1}`)
	if got := p.ok("tls.Read", 1, 100); got != "aGVsbG8=" {
		t.Errorf("the notifications were not carried out: Read returns %s", got)
	}
}

// The calls of a batch are begun in order, and answered together when all have ended.
func TestBatch(t *testing.T) {
	t.Parallel()
	t.Run("calls are begun in order", func(t *testing.T) {
		t.Parallel()
		p := newCaller(t)
		p.line(`[{"jsonrpc":"2.0","id":1,"method":"tls.NewClient","params":{"host":"localhost","port":` + itoa(p.echo()) + `}},` +
			`{"jsonrpc":"2.0","id":2,"method":"tls.Handshake","params":[1]},` +
			`{"jsonrpc":"2.0","id":3,"method":"tls.Write","params":[1,"aGVsbG8="]},` +
			`{"jsonrpc":"2.0","method":"tls.Write","params":[1,"IQ=="]},` +
			`{"jsonrpc":"2.0","id":4,"method":"tls.Read","params":[1,5]}]`)
		p.expect(`[{"jsonrpc":"2.0","id":1,"result":1},{"jsonrpc":"2.0","id":2,"result":0},{"jsonrpc":"2.0","id":3,"result":5},` +
			`{"jsonrpc":"2.0","id":4,"result":"aGVsbG8="}]`)
	})
	t.Run("an answer waits for all", func(t *testing.T) {
		t.Parallel()
		p := newCaller(t)
		h := p.client(p.echo())
		p.line(`[{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[` + string(h) + `,9]},{"jsonrpc":"2.0","id":2,"method":"tls.Backend"}]`)
		// tlsd reads on, and has not answered the batch yet
		p.silent()
		p.line(`{"jsonrpc":"2.0","method":"tls.Write","params":[` + string(h) + `,"IQ=="]}`)
		p.expect(`[{"jsonrpc":"2.0","id":1,"result":"IQ=="},{"jsonrpc":"2.0","id":2,"result":"openssl"}]`)
	})
	t.Run("a batch in a batch is no request", func(t *testing.T) {
		t.Parallel()
		p := newCaller(t)
		p.line(`[[{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}],[]]`)
		p.expect(`[` + invalidRequest + `,` + invalidRequest + `]`)
	})
	t.Run("null ids are answered", func(t *testing.T) {
		t.Parallel()
		p := newCaller(t)
		p.line(`[{"jsonrpc":"2.0","id":null,"method":"tls.Backend"},{"jsonrpc":"2.0","method":"tls.Backend"}]`)
		p.expect(`[{"jsonrpc":"2.0","id":null,"result":"openssl"}]`)
	})
	t.Run("two batches do not mix", func(t *testing.T) {
		t.Parallel()
		p := newCaller(t)
		p.line(`[{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}]`)
		p.line(`[{"jsonrpc":"2.0","id":2,"method":"tls.Backend"}]`)
		p.expect(`[{"jsonrpc":"2.0","id":1,"result":"openssl"}]`)
		p.expect(`[{"jsonrpc":"2.0","id":2,"result":"openssl"}]`)
	})
}

// A batch of wire.MaxBatch calls is answered. A larger batch gets one error for all its calls.
func TestABatchHasABound(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	batch := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(backend+",", n), ",") + "]"
	}
	p.line(batch(wire.MaxBatch))
	if n := strings.Count(p.answer(), `"result":"openssl"`); n != wire.MaxBatch {
		t.Errorf("a batch of %d calls gets %d results, want one for each call",
			wire.MaxBatch, n)
	}
	p.line(batch(wire.MaxBatch + 1))
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32011,"message":"a batch has at most 1024 calls; send several batches","data":{"kind":"limit"}}}`)
	p.silent()
}
