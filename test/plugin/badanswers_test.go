package plugin

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// If tlsd breaks the protocol, the plugin closes the session. The host goes on.

func TestAnswersMayComeInAnyPieces(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	call := h.start("Subject", 1)
	id := p.expect("tls.PeerCertSubject", "[1]")
	for _, b := range []byte(fmt.Sprintf(" { \"raw\" : 5 ,\"result\":\"hello\", "+
		"\"x\":[{}],\"id\":%d,\"jsonrpc\":\"2.0\" } \r\n", id)) {
		p.send(string([]byte{b}))
	}
	call.gives(5, "hello")

	// Two answers and the beginning of a third in one piece.
	a, b, c := h.start("SetTimeout", 1, 5), h.start("SetTimeout", 1, 5),
		h.start("SetTimeout", 1, 5)
	var ids []int64
	for range 3 {
		ids = append(ids, p.expect("tls.SetTimeout", "[1,5]"))
	}
	answer := `{"jsonrpc":"2.0","id":%d,"result":0}` + "\n"
	p.send(fmt.Sprintf(answer+answer+answer[:10], ids[2], ids[0]))
	p.send(fmt.Sprintf(answer[10:], ids[1]))
	a.gives(0, "")
	b.gives(0, "")
	c.gives(0, "")
}

func TestAnswersMayComeInAnyOrder(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	const n = 20
	calls := map[string]*pending{}
	ids := map[string]int64{}
	for i := range n {
		name := fmt.Sprintf("[%d]", i+1)
		calls[name] = h.start("Subject", i+1)
		ids[name] = p.expect("tls.PeerCertSubject", name)
	}
	for name, id := range ids { // in random order
		p.result(id, `"`+name+`"`)
		calls[name].gives(int64(len(name)), name)
	}
}

// After an answer that breaks the protocol, the plugin closes the session. The waiting call fails,
// and so do all later calls on the session's handles. The errors say what was wrong.
func TestATLSDThatBreaksTheProtocolIsLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string // %[1]d is the id of a PeerCertSubject
		why    string
	}{
		"no JSON":    {"nonsense\n", "no answer of JSON-RPC 2.0"},
		"blank line": {"\n", "no answer of JSON-RPC 2.0"},
		"not UTF-8": {
			"{\"jsonrpc\":\"2.0\",\"id\":%[1]d,\"error\":{\"message\":\"\xff\"}}\n",
			"no answer of JSON-RPC 2.0"},
		"array": {`[{"jsonrpc":"2.0","id":%[1]d,"result":0}]` + "\n",
			"no answer of JSON-RPC 2.0"},
		"no version": {`{"id":%[1]d,"result":"x"}` + "\n", "no answer of JSON-RPC 2.0"},
		"no id":      {`{"jsonrpc":"2.0","result":"x"}` + "\n", "no answer of JSON-RPC 2.0"},
		"id a string": {`{"jsonrpc":"2.0","id":"%[1]d","result":"x"}` + "\n",
			"no answer of JSON-RPC 2.0"},
		"id twice": {`{"jsonrpc":"2.0","id":%[1]d,"id":%[1]d,"result":"x"}` + "\n",
			"no answer of JSON-RPC 2.0"},
		"neither": {`{"jsonrpc":"2.0","id":%[1]d}` + "\n", "no answer of JSON-RPC 2.0"},
		"both": {`{"jsonrpc":"2.0","id":%[1]d,"result":"x","error":{"message":"x"}}` + "\n",
			"no answer of JSON-RPC 2.0"},
		"error is no object": {`{"jsonrpc":"2.0","id":%[1]d,"error":"x"}` + "\n",
			"no answer of JSON-RPC 2.0"},
		"error has no message": {`{"jsonrpc":"2.0","id":%[1]d,"error":{"code":1}}` + "\n",
			"no answer of JSON-RPC 2.0"},
		"nobody's id": {`{"jsonrpc":"2.0","id":4711,"result":"x"}` + "\n",
			"a call that is not waiting: id 4711"},
		"Hello's id again": {`{"jsonrpc":"2.0","id":1,"result":{}}` + "\n",
			"a call that is not waiting: id 1"},
		"deep": {`{"jsonrpc":"2.0","id":%[1]d,"result":` + strings.Repeat("[", 100) +
			strings.Repeat("]", 100) + "}\n", "no answer of JSON-RPC 2.0"},
		"very deep": {strings.Repeat("[", 1000_000) + "\n",
			"no answer of JSON-RPC 2.0"},
		"endless line": {strings.Repeat(" ", 1<<20+1),
			"a line of more than 1048576 bytes"},
		"NUL":           {"{\"jsonrpc\":\"2.0\",\x00\n", "no answer of JSON-RPC 2.0"},
		"end in a line": {`{"jsonrpc":"2.0","id":%[1]d`, "has closed the session"},
		"end":           {"", "has closed the session"},
		"goodbye":       {`{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"the worker was killed","data":{"kind":"lost"}}}` + "\n", "the worker was killed"},
		"result for null": {`{"jsonrpc":"2.0","id":null,"result":1}` + "\n",
			"an answer without an id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p := opened(t)
			call := h.start("Subject", 1)
			id := p.expect("tls.PeerCertSubject", "[1]")
			if strings.Contains(c.answer, "%[1]d") {
				c.answer = fmt.Sprintf(c.answer, id)
			}
			// The plugin may close the session before it has read the whole answer. So
			// an error of this Write is no failure.
			p.conn.Write([]byte(c.answer))
			p.conn.CloseWrite()
			call.fails("tls.PeerCertSubject: handle 1: lost: ", c.why)
			p.ended()
			h.send("Handshake", 1).fails("tls.Handshake: handle 1: lost: ", c.why)
		})
	}
}

// tlsd cannot know a call that has not been sent, so an answer to such a call breaks the protocol.
// The plugin must not store the answer: an unsent call that is cancelled returns at once, and then
// the memory for its result is gone.
func TestAnAnswerToACallThatIsNotYetSentEndsTheSession(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	call := h.start("Subject", 1)
	id := p.expect("tls.PeerCertSubject", "[1]")
	waiting := h.clog(p, call)
	// This call gets the highest id. The socket is full, so the call waits behind another one,
	// and is not sent.
	waiting = append(waiting, h.start("Subject", 1))
	h.untilThreadsWait(len(waiting))
	last := id + int64(len(waiting)) - 1
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":5}`+"\n", last))
	why := fmt.Sprintf("lost: tlsd has answered a call that is not waiting: id %d", last)
	for _, c := range waiting {
		if r := c.wait(); r.N != -1 || !strings.HasSuffix(r.Text, why) {
			t.Errorf("%s gives %d, %q; want -1, and a text that ends in %q", c.Op, r.N,
				r.Text, why)
		}
	}
}

func TestAResultOfTheWrongSortEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		op     string
		args   []any
		result string
	}{
		{"NewClient", []any{"h", 1}, "0"}, // not a handle: handles begin with 1
		{"NewClient", []any{"h", 1}, "2147483648"},
		{"NewClient", []any{"h", 1}, `"2"`},
		{"Handshake", []any{1}, "-1"},
		{"Handshake", []any{1}, "0.0"},
		{"Handshake", []any{1}, "0e0"},
		{"Handshake", []any{1}, "null"},
		{"Write", []any{1, []byte("abc")}, "3"}, // impossible without a data channel
		{"PeerCertSubject", []any{1}, "0"},
		{"PeerCertSubject", []any{1}, "null"},
		{"Read", []any{1, 4}, `"aGVsbG8="`},
		{"Read", []any{1, 4}, "0"},
	} {
		t.Run(c.op+" "+c.result, func(t *testing.T) {
			t.Parallel()
			_, h, p := opened(t)
			call := h.start(c.op, c.args...)
			p.result(*p.request().ID, c.result)
			call.fails("tls."+c.op,
				"lost: tlsd has answered tls."+c.op+" with "+
					"an impossible result")
			p.ended()
		})
	}
}

// If plugin and tlsd do not agree in tls.Hello, tls.NewClient fails with the kind backend and the
// reason. tls.Backend cannot fail: it gives "stub".
func TestASessionThatCannotBeAgreedOnIsABackendError(t *testing.T) {
	t.Parallel()
	answer := func(result string) string {
		return `{"jsonrpc":"2.0","id":1,"result":` +
			result + "}\n"
	}
	denied := `{"jsonrpc":"2.0","id":null,"error":{"code":-32012,"message":"user 7 may not use this tlsd","data":{"kind":"denied"}}}` + "\n"
	for name, c := range map[string]struct{ answer, why string }{
		"old": {answer(`{"version":0,"capabilities":["data"]}`),
			"does not speak version 1"},
		"new": {answer(`{"version":2,"capabilities":["data"]}`),
			"does not speak version 1"},
		"number":   {answer(`1`), "does not speak version 1"},
		"no list":  {answer(`{"version":1}`), "does not have the capability data"},
		"refused":  {`{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"tls.Hello: firstHandle: too big"}}` + "\n", "tls.Hello: firstHandle: too big"},
		"denied":   {denied, "user 7 may not use this tlsd"},
		"SSH":      {"SSH-2.0-OpenSSH_9.2p1\r\n", "no answer of JSON-RPC 2.0"},
		"other id": {`{"jsonrpc":"2.0","id":2,"result":{"version":1,"capabilities":["data"]}}` + "\n", "a call that is not waiting: id 2"},
		// The text is "tlsd has closed the session" or "tlsd is gone". If tlsd closes its
		// end before it has read a request, Linux reports a reset: tlsd "is gone".
		"goes away": {"", "tlsd "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newStandIn(t)
			h := startHost(t, d.env())
			for _, early := range []bool{false, true} {
				call := h.start("NewClient", "h", 1)
				p := d.accept()
				// With early, tlsd answers before it has read tls.Hello. It does
				// so when it denies a caller.
				if !early {
					p.helloOnly()
				}
				p.conn.Write([]byte(c.answer))
				p.conn.Close()
				call.fails("tls.NewClient: backend: "+d.path+": ", c.why)
			}
			backend := h.start("Backend")
			for range 2 { // two calls of tls_Backend, for the length and the text
				p := d.accept()
				p.helloOnly()
				p.conn.Write([]byte(c.answer))
				p.conn.Close()
			}
			backend.gives(4, "stub")
			if r := h.call("LastError"); !strings.HasPrefix(r.Text, "tls.NewClient: ") {
				t.Errorf("after tls.Backend, tls.LastError is %q; want the error "+
					"of tls.NewClient", r.Text)
			}
		})
	}
}

// Calls of several threads share one answer to tls.Hello. If the answer does not come within 10 s,
// all these calls fail at that moment. They do not wait for 10 s one after another.
func TestATLSDThatDoesNotAnswerHelloIsGivenUpOnceForAll(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	calls := []*pending{h.start("NewClient", "h", 1)}
	p := d.accept()
	p.helloOnly()
	for range 5 {
		calls = append(calls, h.start("NewClient", "h", 1))
	}
	for _, call := range calls {
		// All calls fail 10 s after the plugin has sent tls.Hello.
		call.fails("tls.NewClient: backend: "+d.path+": ", "tlsd has not answered in time")
	}
	p.ended()
	d.ln.SetDeadline(time.Now())
	if _, err := d.ln.Accept(); err == nil {
		t.Error("the plugin has connected a second time; want one connection for all calls")
	}
}
