package rpc_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/policy"
	"tlsd/rpc"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// counting is an engine whose connections never wait: they take what is written, and give, at most 1,000 at a time,
// the bytes 0, 1, 2 … in a row.
type counting struct {
	idle
	open    *atomic.Int64 // connections that have not been freed
	written hash.Hash     // by all of its connections, if there is only one
}

func newCounting() counting {
	return counting{idle{session.Stub(errors.New("no files here"))}, new(atomic.Int64), sha256.New()}
}

func (e counting) NewClientContext(session.CABundle) (session.EngineContext, error) {
	return countingContext{engine: e}, nil
}

type countingContext struct {
	idleContext
	engine counting
}

func (c countingContext) Client(nc *net.TCPConn, _ string) (session.EngineConn, error) {
	nc.SetLinger(0) // thousands in a row must not use up the ports
	c.engine.open.Add(1)
	return &countingConn{idleConn: idleConn{nc}, engine: c.engine}, nil
}

type countingConn struct {
	idleConn
	engine counting
	next   byte
}

func (c *countingConn) TryRead(p []byte) (int, error) {
	n := min(len(p), 1000)
	for i := range n {
		p[i] = c.next
		c.next++
	}
	return n, nil
}

func (c *countingConn) ReadSome(_ context.Context, limit int) ([]byte, error) {
	p := make([]byte, limit)
	n, err := c.TryRead(p)
	return p[:n], err
}

func (c *countingConn) TryWrite(p []byte) (int, error)                 { return c.engine.written.Write(p) }
func (c *countingConn) Write(_ context.Context, p []byte) (int, error) { return c.TryWrite(p) }

func (c *countingConn) Close() error {
	c.engine.open.Add(-1)
	return c.idleConn.Close()
}
func (c *countingConn) CloseContext(context.Context) error { return c.Close() }
func (c *countingConn) Abort() error                       { return c.Close() }

// harmless lets sessions connect to one port of this machine, and neither listen nor read a file.
func harmless(t testing.TB, port int) policy.Policy {
	t.Helper()
	var p policy.Policy
	if err := json.Unmarshal(fmt.Appendf(nil, `{"destinations":["127.0.0.1:%d"],"listen":[],"key-folders":[],"ca-folders":[]}`, port), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// converse sends bytes to a session that has the raw capability and connections with the handles 1 and 2, and gives all
// answers, to calls with their id as the key. shared says that they go through shared memory. The session must end well, and free all.
func converse(t *testing.T, port int, engine counting, data []byte, shared bool) map[string][]string {
	t.Helper()
	ours, theirs := pair(t)
	defer ours.Close()
	ours.SetDeadline(time.Now().Add(patience))
	served := make(chan error, 1)
	cfg := rpc.Config{Session: session.Config{Engine: engine, Policy: harmless(t, port)}}
	go func() { served <- rpc.Serve(context.Background(), theirs, cfg) }()
	const client = `{"jsonrpc":"2.0","id":%q,"method":"tls.NewClient","params":["127.0.0.1",%d]}` + "\n" +
		`{"jsonrpc":"2.0","id":%q,"method":"tls.Handshake","params":[%d]}` + "\n"
	p := &peer{t: t, conn: ours, to: ours, r: wire.NewReader(ours, 64<<20)}
	stop := func() {}
	if shared {
		stop = p.move("raw").Stop
	}
	p.send(fmt.Sprintf(hello+"\n"+client+client, "c1", port, "h1", 1, "c2", port, "h2", 2))
	r := p.r
	for range 5 {
		if line, err := r.Line(); err != nil || !bytes.Contains(line, []byte(`"result"`)) { // else nothing goes the short way
			t.Fatalf("the session cannot begin: %s, %v", line, err)
		}
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		p.to.Write(data) // fails if the server closes before
		ours.CloseWrite()
	}()
	answers := map[string][]string{}
	for {
		line, err := r.Line()
		if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
			t.Fatal("the session did not end")
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset by peer") { // it was closed before all was read
				t.Fatal(err)
			}
			break
		}
		list := []json.RawMessage{line}
		batch := strings.HasPrefix(string(line), "[")
		if batch {
			if err := json.Unmarshal(line, &list); err != nil || len(list) == 0 {
				t.Fatalf("%v in the batch %q", err, line)
			}
		}
		for _, a := range list {
			id, raw := checkAnswer(t, a)
			blob := make([]byte, max(raw, 0))
			if raw >= 0 && batch {
				t.Fatalf("raw bytes in a batch: %s", a)
			}
			text := string(a)
			if err := r.Full(blob); err != nil {
				t.Fatalf("%v in the raw bytes of %s", err, text)
			}
			answers[id] = append(answers[id], text+string(blob))
		}
	}
	stop()
	<-sent
	select {
	case <-served:
	case <-time.After(patience):
		t.Fatal("Serve did not return")
	}
	if n := engine.open.Load(); n != 0 {
		t.Fatalf("%d connections are open after the session", n)
	}
	return answers
}

// checkAnswer holds an answer to JSON-RPC 2.0 and to what raw means.
func checkAnswer(t *testing.T, answer []byte) (id string, raw int) {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(answer, &m); err != nil {
		t.Fatalf("%v in %q", err, answer)
	}
	result, hasResult := m["result"]
	_, hasError := m["error"]
	rawText, hasRaw := m["raw"]
	members := 3
	raw = -1
	if hasRaw {
		members = 4
		if json.Unmarshal(rawText, &raw) != nil || raw < 0 || string(result) != "null" {
			t.Fatalf("not an answer: %s", answer)
		}
	}
	if string(m["jsonrpc"]) != `"2.0"` || m["id"] == nil || hasResult == hasError || len(m) != members {
		t.Fatalf("not an answer: %s", answer)
	}
	return string(m["id"]), raw
}

// FuzzServe sends anything to a session. Whatever it is, all answers are messages of JSON-RPC 2.0, the
// session ends, and nothing of it is left.
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		"", "\n", "nonsense\n", "[]\n", "[1]\n", "{}\n", "null", `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}` + "\n",
		`[{"jsonrpc":"2.0","id":1,"method":"tls.NewClient","params":["a",1]},{"jsonrpc":"2.0","method":"tls.Close","params":[1]}]`,
		`{"jsonrpc":"2.0","id":"x","method":"tls.Write","params":[1],"raw":3}` + "\nabc\n" + `{"jsonrpc":"2.0","id":null,"method":"tls.Info"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Write","raw":-1}` + "\n", `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":{"version":1,"firstHandle":7}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Version","params":{"handle":1}}` + "\r\n\r\n", `{"jsonrpc":"2.0","method":"$/cancelRequest","params":[1]}`,
		`{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`, "\xff\xfe\n", `{"jsonrpc":"2.0","id":1,"method":"tls.LastError"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":3}` + "\nabc" + `{"jsonrpc":"2.0","id":2,"method":"tls.Read","params":[1,9]}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[2],"raw":1}` + "\na" + `{"jsonrpc":"2.0","id":2,"method":"tls.Write","params":[2],"raw":1}` + "\nb",
		`[{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,5]},{"jsonrpc":"2.0","id":2,"method":"tls.SetTimeout","params":[1,5]}]`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Close","params":[1]}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"tls.Read","params":[1,5]}`,
	} {
		f.Add([]byte(s))
	}
	port := fakeengine.Silent(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		converse(t, port, newCounting(), data, false)
		converse(t, port, newCounting(), data, true)
	})
}

// FuzzShortWay makes the same calls three times, in the form that is recognised for the short way, over the socket and in
// shared memory, and with a blank that is in its way: the answers are the same, and so is what has been written. Each three
// bytes are a call.
func FuzzShortWay(f *testing.F) {
	f.Add([]byte{0, 1, 5, 1, 1, 9, 0, 1, 7, 2, 1, 0})
	f.Add([]byte{0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 1, 255, 0, 2, 3, 1, 1, 200, 1, 1, 0, 1, 0, 1, 0, 3, 1})
	f.Add([]byte{3, 1, 255, 3, 1, 200, 0, 1, 9, 3, 1, 199, 4, 1, 255, 1, 1, 1, 2, 1, 0, 3, 1, 1, 1, 1, 1})
	port := fakeengine.Silent(f)
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 3*30 {
			return
		}
		var short, long bytes.Buffer
		for id := 0; len(ops) >= 3; id, ops = id+1, ops[3:] {
			handle, n := int(ops[1]%4), int(ops[2])
			var line, blob string
			switch ops[0] % 5 {
			case 0, 3:
				if ops[0]%5 == 3 {
					n *= 256 // more than a record, too
				}
				line = fmt.Sprintf(`"jsonrpc":"2.0","id":%d,"method":"tls.Write","params":[%d],"raw":%d}`, id, handle, n)
				blob = strings.Repeat(string(rune('a'+id%26)), n)
			case 1, 4:
				line = fmt.Sprintf(`"jsonrpc":"2.0","id":%d,"method":"tls.Read","params":[%d,%d]}`, id, handle, n)
			case 2:
				line = fmt.Sprintf(`"jsonrpc":"2.0","id":%d,"method":"tls.Close","params":[%d]}`, id, handle)
			}
			fmt.Fprintf(&short, "{%s\n%s", line, blob)
			fmt.Fprintf(&long, "{ %s\n%s", line, blob)
		}
		// One after the other on each handle, but the Writes of two connections have no order between them.
		a, b, c := newCounting(), newCounting(), newCounting()
		oneHandle := !bytes.Contains(short.Bytes(), []byte(`"params":[2]`)) || !bytes.Contains(short.Bytes(), []byte(`"params":[1]`))
		first, second := converse(t, port, a, short.Bytes(), false), converse(t, port, b, long.Bytes(), false)
		third := converse(t, port, c, short.Bytes(), true)
		same := func(x, y []string) bool { return len(x) == len(y) && x[0] == y[0] }
		if !maps.EqualFunc(first, second, same) {
			t.Fatalf("%.500s\nis answered\n%.2000q\nbut the long way\n%.2000q", short.Bytes(), first, second)
		}
		if !maps.EqualFunc(first, third, same) {
			t.Fatalf("%.500s\nis answered\n%.2000q\nbut in shared memory\n%.2000q", short.Bytes(), first, third)
		}
		if oneHandle && !bytes.Equal(a.written.Sum(nil), b.written.Sum(nil)) {
			t.Fatalf("%.2000s\nwrites something else than the long way", short.Bytes())
		}
		if oneHandle && !bytes.Equal(a.written.Sum(nil), c.written.Sum(nil)) {
			t.Fatalf("%.2000s\nwrites something else in shared memory", short.Bytes())
		}
	})
}
