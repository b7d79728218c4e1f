package rpc_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/rpc"
)

// limited sets the limits of a session.
func limited(l rpc.Limits) func(*fakeengine.Engine, *rpc.Config) {
	return func(_ *fakeengine.Engine, c *rpc.Config) { c.Limits = l }
}

// overLimit is the answer to a call that exceeds a limit.
func overLimit(id, op string) string {
	if op != "" {
		op = `,"op":"` + op + `"`
	}
	return `{"jsonrpc":"2.0","id":` + id + `,"error":{"code":-32011,"message":...,"data":{"kind":"limit"` + op + `}}}`
}

// nested is n arrays, one inside of the other.
func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// A message with more levels of nesting than the limit is refused. The session goes on.
func TestNestingIsLimited(t *testing.T) {
	t.Parallel()
	const most = 10
	p := newCaller(t, limited(rpc.Limits{Nesting: most}))
	member := func(n int) string { return `{"jsonrpc":"2.0","id":7,"method":"tls.Backend","x":` + nested(n-1) + `}` }
	p.line(member(most))
	p.expect(`{"jsonrpc":"2.0","id":7,"result":"openssl"}`)
	// encoding/json has a limit of its own, 10,000 levels. Its error must not come in place of
	// the error of tlsd.
	for _, n := range []int{most + 1, 9_999, 10_001, 1_000_000} {
		p.line(member(n))
		p.expect(overLimit("7", "tls.Backend"))
	}
	p.line(`[` + member(most-1) + `]`)
	p.expect(`[{"jsonrpc":"2.0","id":7,"result":"openssl"}]`)
	p.line(`[` + member(most) + `]`)
	p.expect(overLimit("null", ""))
	// Brackets in a string do not count.
	p.line(`{"jsonrpc":"2.0","id":"` + strings.Repeat(`[\"{`, 100) + `","method":"tls.Backend"}`)
	if got := p.answer(); !strings.Contains(got, `"result":"openssl"`) {
		t.Errorf("brackets in a string count as nesting: %s", got)
	}
	// A refused notification is not answered. A refused NewClient uses up the number of a
	// handle.
	p.line(`{"jsonrpc":"2.0","id":8,"method":"tls.Write","params":` + nested(most) + `}` + "\n" +
		`{"jsonrpc":"2.0","method":"tls.Write","params":` + nested(most) + `}`)
	p.expect(overLimit("8", "tls.Write"))
	p.line(`{"jsonrpc":"2.0","id":9,"method":"tls.NewClient","params":` + nested(most) + `}`)
	p.expect(overLimit("9", "tls.NewClient"))
	if got := p.server(); got != "2" {
		t.Errorf("got handle %s, want 2: the refused NewClient has taken 1", got)
	}
	// A text that is no JSON is a parse error, even if it is nested too deep.
	p.line(nested(most+1) + "]")
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":...,"data":{"kind":"params"}}}`)
	e := p.fails(kind.Params, "tls.Backend", []any{})
	if !strings.Contains(e.Message, "takes no parameters") {
		t.Errorf("the error says %q, want that the method takes no parameters", e.Message)
	}
}

// stuck makes all Writes of the engine wait until they are cancelled.
func stuck(e *fakeengine.Engine, _ *rpc.Config) {
	e.Hook = func(ctx context.Context, op fakeengine.Op) error {
		if op == fakeengine.Write {
			<-ctx.Done()
		}
		return nil
	}
}

// The bytes of the calls that wait in a session are limited in total. A call above the limit is
// refused, and its bytes do not count. $/cancelRequest and Close are not refused. When they end a
// call, its bytes no longer count.
func TestKeptBytesAreLimited(t *testing.T) {
	t.Parallel()
	const most, first = 1 << 20, 600_000
	write := func(id string, handle, n int) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"tls.Write","params":[%d,"%s"]}`+"\n", id, handle, base64.StdEncoding.EncodeToString(make([]byte, n)))
	}
	p := newCaller(t, stuck, limited(rpc.Limits{Buffered: most}))
	port := p.echo()
	a, b := p.client(port), p.client(port)
	p.send(write("101", 1, first))
	p.send(write("102", 2, most-first+1))
	p.expect(overLimit("102", "tls.Write"))
	p.send(write("103", 2, most-first)) // exactly up to the limit
	p.send(write("104", 2, 1))
	p.expect(overLimit("104", "tls.Write"))
	p.line(`{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 1000) + `","method":"tls.Read","params":[1,1]}`)
	if got := p.answer(); !strings.Contains(got, "--max-buffered") {
		t.Errorf("a call with a long id gets %s, want an error that names --max-buffered",
			got)
	}
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[103]}`)
	p.expect(cancelled("103", "tls.Write", string(b)))
	p.send(write("105", 2, most-first+1))
	p.expect(overLimit("105", "tls.Write"))
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[101]}`)
	p.expect(cancelled("101", "tls.Write", string(a)))
	p.ok("tls.Close", a)
	p.ok("tls.Close", b)
	// All calls have ended, so a call may have as many bytes as the limit.
	c := p.client(port)
	p.send(write("106", 3, most))
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[106]}`)
	p.expect(cancelled("106", "tls.Write", string(c)))
}

// tlsd keeps the answers of a batch until all its calls have ended, so they count towards the limit
// of bytes. For a Read the largest possible answer counts from the beginning.
func TestABatchesAnswersAreCounted(t *testing.T) {
	t.Parallel()
	const each = 3000 // 4,000 bytes in base64
	p := newCaller(t, limited(rpc.Limits{Buffered: 2*4000 + 100}))
	h := p.client(p.echo())
	read := func(id int) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tls.Read","params":[%s,%d]}`, id, h, each)
	}
	for range 3 { // after a batch its bytes do not count any more
		p.line("[" + read(901) + "," + read(902) + "," + read(903) + "]")
		p.ok("tls.Write", h, "eA==")
		p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[902]}`)
		got := p.answer()
		if strings.Count(got, `"kind":"limit"`) != 1 || !strings.Contains(got, `"id":901,"result":"eA=="`) || !strings.Contains(got, `"kind":"cancelled"`) {
			t.Fatalf("of three Reads, want one answered, one cancelled, one refused: "+
				"%s", got)
		}
	}
}

// The answers of a batch count towards the limit of bytes, whatever the method. They do not count
// any more when the batch is answered.
func TestABatchesLargeAnswersAreCounted(t *testing.T) {
	t.Parallel()
	const call = `{"jsonrpc":"2.0","id":%d,"method":"rpc.discover"}`
	p := newCaller(t)
	p.line(fmt.Sprintf(call, 1))
	size := len(p.answer())
	p = newCaller(t, limited(rpc.Limits{Buffered: 2 * size}))
	for range 3 {
		p.line(fmt.Sprintf("["+call+","+call+","+call+",%s]", 1, 2, 3, backend))
		got := p.answer()
		refused := strings.Count(got, `"id":3,"error":{"code":-32011`)
		if strings.Count(got, `"openrpc"`) != 2 || refused != 1 ||
			!strings.Contains(got, `"result":"openssl"`) {
			t.Fatalf("of three large answers, want two, one refused: %.300s … %.500s",
				got, got[max(0, len(got)-500):])
		}
	}
	for n := range 5 { // outside of a batch, an answer is written at once and does not count
		p.line(fmt.Sprintf(call, n))
		if got := p.answer(); len(got) != size {
			t.Errorf("a call outside of a batch is not answered whole: %.300s", got)
		}
	}
}

// A notification may still run when its batch is answered. Its bytes count until it ends.
func TestANotificationThatOutlivesItsBatchCountsUntilItsEnd(t *testing.T) {
	t.Parallel()
	p := newCaller(t, stuck, limited(rpc.Limits{Buffered: 100}))
	conn := p.client(p.echo())
	h := string(conn)
	data := base64.StdEncoding.EncodeToString(make([]byte, 100))
	p.line(`[` + backend + `,{"jsonrpc":"2.0","method":"tls.Write","params":[` + h + `,"` + data + `"]}]`)
	p.expect(`[` + backendAnswer + `]`)
	p.ok("tls.Close", conn) // the Close ends the Write
	h = string(p.client(p.echo()))
	// The Close may be answered a moment before the bytes of the Write stop counting.
	testkit.Until(t, "the bytes of the ended Write stop counting", func() bool {
		p.line(`{"jsonrpc":"2.0","id":7,"method":"tls.Write","params":[` + h + `,"` + data +
			`"]}`)
		p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[7]}`)
		got := p.answer()
		if matches(overLimit("7", "tls.Write"), got) {
			return false
		}
		if want := cancelled("7", "tls.Write", h); !matches(want, got) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		return true
	})
}
