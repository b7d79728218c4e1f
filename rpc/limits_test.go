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

// TestNestingIsLimited tries the limit, and one level more. The connection lives on, and the next
// message is read.
func TestNestingIsLimited(t *testing.T) {
	t.Parallel()
	const most = 10
	p := newPeer(t, limited(rpc.Limits{Nesting: most}))
	member := func(n int) string { return `{"jsonrpc":"2.0","id":7,"method":"tls.Backend","x":` + nested(n-1) + `}` }
	p.line(member(most))
	p.expect(`{"jsonrpc":"2.0","id":7,"result":"openssl"}`)
	// encoding/json goes to 10,000.
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
		t.Errorf("got %s", got)
	}
	// A notification is not answered. The number of a handle is used up.
	p.line(`{"jsonrpc":"2.0","id":8,"method":"tls.Write","params":` + nested(most) + `}` + "\n" +
		`{"jsonrpc":"2.0","method":"tls.Write","params":` + nested(most) + `}`)
	p.expect(overLimit("8", "tls.Write"))
	p.line(`{"jsonrpc":"2.0","id":9,"method":"tls.NewClient","params":` + nested(most) + `}`)
	p.expect(overLimit("9", "tls.NewClient"))
	if got := p.server(); got != "2" {
		t.Errorf("got handle %s, want 2", got)
	}
	// Bad JSON is an error, also if it is deep.
	p.line(nested(most+1) + "]")
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":...,"data":{"kind":"params"}}}`)
	e := p.fails(kind.Params, "tls.Backend", []any{})
	if !strings.Contains(e.Message, "takes no parameters") {
		t.Errorf("%q", e.Message)
	}
}

// stuck blocks all Writes.
func stuck(e *fakeengine.Engine, _ *rpc.Config) {
	e.Hook = func(ctx context.Context, op fakeengine.Op) error {
		if op == fakeengine.Write {
			<-ctx.Done()
		}
		return nil
	}
}

// TestKeptBytesAreLimited tries the limit, and one byte more, with the data of waiting Writes. The
// data of a refused call is dropped. Calls that end the waiting are not refused, and then there is
// room again.
func TestKeptBytesAreLimited(t *testing.T) {
	t.Parallel()
	const most, first = 1 << 20, 600_000
	write := func(id string, handle, n int) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"tls.Write","params":[%d,"%s"]}`+"\n", id, handle, base64.StdEncoding.EncodeToString(make([]byte, n)))
	}
	p := newPeer(t, stuck, limited(rpc.Limits{Buffered: most}))
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
		t.Errorf("a call with a long id is not refused: %s", got)
	}
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[103]}`)
	p.expect(cancelled("103", "tls.Write", string(b)))
	p.send(write("105", 2, most-first+1))
	p.expect(overLimit("105", "tls.Write"))
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[101]}`)
	p.expect(cancelled("101", "tls.Write", string(a)))
	p.ok("tls.Close", a)
	p.ok("tls.Close", b)
	// No bytes are counted any more.
	c := p.client(port)
	p.send(write("106", 3, most))
	p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[106]}`)
	p.expect(cancelled("106", "tls.Write", string(c)))
}

// TestABatchesAnswersAreCounted: tlsd keeps the answers of a batch until it is complete. So it
// counts the largest possible answer of a call when the call begins.
func TestABatchesAnswersAreCounted(t *testing.T) {
	t.Parallel()
	const each = 3000 // 4,000 bytes in base64
	p := newPeer(t, limited(rpc.Limits{Buffered: 2*4000 + 100}))
	h := p.client(p.echo())
	read := func(id int) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tls.Read","params":[%s,%d]}`, id, h, each)
	}
	for range 3 { // after a batch, no bytes are counted any more
		p.line("[" + read(901) + "," + read(902) + "," + read(903) + "]")
		p.ok("tls.Write", h, "eA==")
		p.line(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[902]}`)
		got := p.answer()
		if strings.Count(got, `"kind":"limit"`) != 1 || !strings.Contains(got, `"id":901,"result":"eA=="`) || !strings.Contains(got, `"kind":"cancelled"`) {
			t.Fatalf("got %s", got)
		}
	}
}

// TestABatchesLargeAnswersAreCounted: this holds for every method. When the batch is complete, the
// answers do not count any more.
func TestABatchesLargeAnswersAreCounted(t *testing.T) {
	t.Parallel()
	const call = `{"jsonrpc":"2.0","id":%d,"method":"rpc.discover"}`
	p := newPeer(t)
	p.line(fmt.Sprintf(call, 1))
	size := len(p.answer())
	p = newPeer(t, limited(rpc.Limits{Buffered: 2 * size}))
	for range 3 {
		p.line(fmt.Sprintf("["+call+","+call+","+call+",%s]", 1, 2, 3, backend))
		got := p.answer()
		refused := strings.Count(got, `"id":3,"error":{"code":-32011`)
		if strings.Count(got, `"openrpc"`) != 2 || refused != 1 ||
			!strings.Contains(got, `"result":"openssl"`) {
			t.Fatalf("got %.300s … %.500s", got, got[max(0, len(got)-500):])
		}
	}
	for n := range 5 { // outside of a batch tlsd writes each answer at once
		p.line(fmt.Sprintf(call, n))
		if got := p.answer(); len(got) != size {
			t.Errorf("got %.300s", got)
		}
	}
}

// TestANotificationThatOutlivesItsBatchCountsUntilItsEnd: its bytes do not count any more after it.
func TestANotificationThatOutlivesItsBatchCountsUntilItsEnd(t *testing.T) {
	t.Parallel()
	p := newPeer(t, stuck, limited(rpc.Limits{Buffered: 100}))
	conn := p.client(p.echo())
	h := string(conn)
	data := base64.StdEncoding.EncodeToString(make([]byte, 100))
	p.line(`[` + backend + `,{"jsonrpc":"2.0","method":"tls.Write","params":[` + h + `,"` + data + `"]}]`)
	p.expect(`[` + backendAnswer + `]`)
	p.ok("tls.Close", conn) // the Close ends the Write
	h = string(p.client(p.echo()))
	// The Close may be answered a moment before the bytes of the Write stop counting.
	testkit.Until(t, "a Write fits", func() bool {
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
