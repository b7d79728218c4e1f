package rpc_test

import (
	"fmt"
	"strings"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testkit"
	"tlsd/rpc"
	"tlsd/session"
)

// cancelled is the answer to a cancelled call. For a call without a handle, the parameter handle is
// empty.
func cancelled(id, method, handle string) string {
	if handle != "" {
		handle = `,"handle":` + handle
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32010,"message":...,"data":{"kind":"cancelled","op":%q%s}}}`, id, method, handle)
}

// $/cancelRequest ends the call that has the given id, whatever the type of the id. The call is
// answered with kind cancelled. If no call in flight has the id, $/cancelRequest has no effect.
func TestCancelRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method string
		params func(*caller) string
		handle string
	}{
		"connect": {"tls.NewClient", func(p *caller) string { return fmt.Sprintf(`["127.0.0.1",%d]`, testkit.Unanswered(p.t)) }, ""},
		"Handshake": {"tls.Handshake", func(p *caller) string {
			return "[" + p.ok("tls.NewClient", "localhost", testkit.Silent(p.t)) + "]"
		}, "1"},
		"Read": {"tls.Read", func(p *caller) string {
			return "[" + string(p.client(p.echo())) + ",10]"
		}, "1"},
		"Accept": {"tls.Accept", func(p *caller) string { return fmt.Sprintf(`[%s,"127.0.0.1",%d]`, p.server(), testkit.Port(p.t)) }, "1"},
	} {
		for _, id := range []string{`7`, `"seven"`, `-7`, `null`, `123456789012345678901234567890`} {
			t.Run(name+" "+id, func(t *testing.T) {
				t.Parallel()
				p := newCaller(t)
				p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":%q,"params":%s}`, id, c.method, c.params(p)))
				p.silent()
				// No call has one of these ids.
				for _, other := range []string{`8`, `"7"`, `"null"`, `""`, `70`} {
					p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[` + other + `]}`)
				}
				p.silent()
				p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":` + id + `}}`)
				p.expect(cancelled(id, c.method, c.handle))
				p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":` + id + `}}`)
				p.silent()
			})
		}
	}
}

// $/cancelRequest with an id of its own is a call, so it is answered, even if it has cancelled
// nothing.
func TestCancelRequestAsACallIsAnswered(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.line(`{"jsonrpc":"2.0","id":1,"method":"$/cancelRequest","params":[99]}`)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":null}`)
}

// Ids that are strings are compared after their escapes are resolved.
func TestCancelRequestComparesStringsByValue(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	h := string(p.client(p.echo()))
	p.line(`{"jsonrpc":"2.0","id":"\u0061/b","method":"tls.Read","params":[` + h + `,1]}`)
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":["a\/b"]}`)
	p.expect(cancelled(`"a/b"`, "tls.Read", h))
}

// If several calls have the same id, $/cancelRequest ends all of them, and no other call.
func TestCancelRequestEndsAllWithThatID(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	h := string(p.client(p.echo()))
	for range 3 {
		p.line(`{"jsonrpc":"2.0","id":"same","method":"tls.Read","params":[` + h + `,1]}`)
	}
	p.line(`{"jsonrpc":"2.0","id":"other","method":"tls.Read","params":[` + h + `,1]}`)
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":["same"]}`)
	for range 3 {
		p.expect(cancelled(`"same"`, "tls.Read", h))
	}
	p.line(`{"jsonrpc":"2.0","method":"tls.Write","params":[` + h + `,"IQ=="]}`)
	p.expect(`{"jsonrpc":"2.0","id":"other","result":"IQ=="}`)
}

// $/cancelRequest can end a call of its own batch.
func TestCancelRequestInABatch(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	h := string(p.client(p.echo()))
	p.line(`[{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[` + h + `,1]},` +
		`{"jsonrpc":"2.0","id":2,"method":"tls.Backend"},` +
		`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[1]}]`)
	p.expect(`[` + cancelled("1", "tls.Read", h) + `,{"jsonrpc":"2.0","id":2,"result":"openssl"}]`)
}

// $/cancelRequest cannot end a call of another session that has the same id.
func TestCancelRequestReachesNoOtherSession(t *testing.T) {
	t.Parallel()
	p, other := newCaller(t), newCaller(t)
	h := string(p.client(p.echo()))
	p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[` + h + `,1]}`)
	p.silent()
	other.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[1]}`)
	other.silent()
	p.line(`{"jsonrpc":"2.0","id":9,"method":"tls.Write","params":[` + h + `,"IQ=="]}`)
	seen := p.answer() + p.answer()
	if !strings.Contains(seen, `"id":1,"result":"IQ=="`) {
		t.Errorf("another session has cancelled the Read: %s", seen)
	}
}

// A call above the limit of calls in flight is refused. $/cancelRequest is not refused, and makes
// room for another call.
func TestCallsInFlightAreLimited(t *testing.T) {
	t.Parallel()
	p := newCaller(t, func(_ *fakeengine.Engine, c *rpc.Config) {
		c.Session.Limits = session.Limits{Calls: 3}
	})
	h := string(p.client(p.echo()))
	for i := range 3 {
		p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":"r%d","method":"tls.Read","params":[%s,1]}`, i, h))
	}
	p.line(`{"jsonrpc":"2.0","id":5,"method":"tls.Write","params":[` + h + `,"IQ=="]}`)
	p.expect(overLimit("5", "tls.Write"))
	for _, method := range []string{"tls.Read", "tls.NewClient"} {
		params := []any{1, 1}
		if method == "tls.NewClient" {
			params = []any{"localhost", 1}
		}
		e := p.fails("limit", method, params...)
		if e.Code != -32011 || e.Data.Op != method ||
			!strings.Contains(e.Message, "3 calls are in flight") {
			t.Errorf("%s above the limit: code %d, data %+v, message %q; want -32011, "+
				"the method, and \"3 calls are in flight\"", method, e.Code, e.Data,
				e.Message)
		}
	}
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":["r0"]}`)
	p.expect(cancelled(`"r0"`, "tls.Read", h))
	if got := p.server(); got != "3" {
		t.Errorf("the next handle is %s, want 3, because the refused NewClient has taken 2",
			got)
	}
}
