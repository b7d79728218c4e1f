package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tlsd/internal/policy"
	"tlsd/internal/testkit"
	"tlsd/rpc"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// counting is an engine whose connections never wait. A Write takes all bytes. Reads return the
// bytes 0, 1, 2 … in turn, at most 1,000 at a time.
type counting struct {
	idle
	open *atomic.Int64 // connections that are not freed yet
}

func newCounting() counting {
	return counting{idle{session.Stub(errors.New("no files here"))}, new(atomic.Int64)}
}

func (e counting) NewClientContext(session.CABundle) (session.EngineContext, error) {
	return countingContext{engine: e}, nil
}

type countingContext struct {
	idleContext
	engine counting
}

func (c countingContext) Client(nc *net.TCPConn, _ string) (session.EngineConn, error) {
	nc.SetLinger(0) // no TIME_WAIT, which would use up the ports
	c.engine.open.Add(1)
	return &countingConn{idleConn: idleConn{nc}, engine: c.engine}, nil
}

type countingConn struct {
	idleConn
	engine counting
	next   byte
}

func (c *countingConn) ReadSome(_ context.Context, limit int) ([]byte, error) {
	p := make([]byte, min(limit, 1000))
	for i := range p {
		p[i] = c.next
		c.next++
	}
	return p, nil
}

func (c *countingConn) Close() error {
	c.engine.open.Add(-1)
	return c.idleConn.Close()
}
func (c *countingConn) CloseContext(context.Context) error { return c.Close() }
func (c *countingConn) CutContext(context.Context) error   { return c.Close() }
func (c *countingConn) Abort() error                       { return c.Close() }

// harmless is a policy with which a session can connect to one port of this machine, and can
// neither listen nor read a file.
func harmless(t testing.TB, port int) policy.Policy {
	t.Helper()
	var p policy.Policy
	if err := json.Unmarshal(fmt.Appendf(nil, `{"destinations":["127.0.0.1:%d"],"listen":[],"key-folders":[],"ca-folders":[]}`, port), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// converse sends data to a session that has connections with the handles 1 and 2. It returns all
// answers, by their ids. The session must end, and free all connections.
func converse(t *testing.T, port int, engine counting, data []byte) map[string][]string {
	t.Helper()
	ours, theirs := testkit.UnixPair(t)
	defer ours.Close()
	ours.SetDeadline(time.Now().Add(testkit.Patience))
	served := make(chan error, 1)
	cfg := rpc.Config{Session: session.Config{Engine: engine, Policy: harmless(t, port)}}
	go func() { served <- rpc.Serve(context.Background(), theirs, cfg) }()
	const client = `{"jsonrpc":"2.0","id":%q,"method":"tls.NewClient","params":["127.0.0.1",%d]}` + "\n" +
		`{"jsonrpc":"2.0","id":%q,"method":"tls.Handshake","params":[%d]}` + "\n"
	r := wire.NewReader(ours, 64<<20)
	fmt.Fprintf(ours, client+client, "c1", port, "h1", 1, "c2", port, "h2", 2)
	for range 4 {
		if line, err := r.Line(); err != nil || !bytes.Contains(line, []byte(`"result"`)) {
			t.Fatalf("the first NewClients and Handshakes must succeed: got %s, %v",
				line, err)
		}
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The Write may fail, because tlsd may close the socket before it has read all
		// data.
		ours.Write(data)
		ours.CloseWrite()
	}()
	answers := map[string][]string{}
	for {
		line, err := r.Line()
		if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
			t.Fatal("tlsd has got all data, but has not closed the socket within " +
				"the time limit")
		}
		if err != nil {
			// A reset is allowed: tlsd has closed the socket before it had read all
			// data.
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(),
				"reset by peer") {
				t.Fatal(err)
			}
			break
		}
		list := []json.RawMessage{line}
		if strings.HasPrefix(string(line), "[") {
			if err := json.Unmarshal(line, &list); err != nil || len(list) == 0 {
				t.Fatalf("the answer to a batch must be an array of answers: %v "+
					"in %q", err, line)
			}
		}
		for _, a := range list {
			id := checkAnswer(t, a)
			answers[id] = append(answers[id], string(a))
		}
	}
	<-sent
	select {
	case <-served:
	case <-time.After(testkit.Patience):
		t.Fatal("tlsd has closed the socket, but Serve does not return")
	}
	if n := engine.open.Load(); n != 0 {
		t.Fatalf("%d connections are open after the session, want 0", n)
	}
	return answers
}

// checkAnswer checks that an answer is one of JSON-RPC 2.0, and returns its id.
func checkAnswer(t *testing.T, answer []byte) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(answer, &m); err != nil {
		t.Fatalf("an answer must be a JSON object: %v in %q", err, answer)
	}
	_, hasResult := m["result"]
	_, hasError := m["error"]
	if string(m["jsonrpc"]) != `"2.0"` || m["id"] == nil || hasResult == hasError || len(m) != 3 {
		t.Fatalf("an answer must have jsonrpc 2.0, id, and either result or error: %s",
			answer)
	}
	return string(m["id"])
}

// FuzzServe sends any bytes to a session. Each answer must be an answer of JSON-RPC 2.0. The
// session must end, and free all connections.
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		"", "\n", "nonsense\n", "[]\n", "[1]\n", "{}\n", "null", `{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}` + "\n",
		`[{"jsonrpc":"2.0","id":1,"method":"tls.NewClient","params":["a",1]},{"jsonrpc":"2.0","method":"tls.Close","params":[1]}]`,
		`{"jsonrpc":"2.0","id":"x","method":"tls.Write","params":[1],"raw":3}` + "\nabc\n" + `{"jsonrpc":"2.0","id":null,"method":"tls.Info"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Write","x":-1}` + "\n", `{"jsonrpc":"2.0","id":1,"method":"tls.Hello","params":{"version":1,"firstHandle":7}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Version","params":{"handle":1}}` + "\r\n\r\n", `{"jsonrpc":"2.0","method":"$/cancelRequest","params":[1]}`,
		`{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}`, "\xff\xfe\n", `{"jsonrpc":"2.0","id":1,"method":"tls.LastError"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1,"YWJj"]}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"tls.Read","params":[1,9]}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[2,"YQ=="]}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"tls.Write","params":[2,"Yg=="]}` + "\n",
		`[{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,5]},{"jsonrpc":"2.0","id":2,"method":"tls.SetTimeout","params":[1,5]}]`,
		`{"jsonrpc":"2.0","id":1,"method":"tls.Close","params":[1]}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"tls.Read","params":[1,5]}`,
	} {
		f.Add([]byte(s))
	}
	port := testkit.Silent(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		converse(t, port, newCounting(), data)
	})
}

// FuzzAnswers sends calls with ids of every type, and notifications, alone and in batches. Each id
// must get as many answers as it has calls. A notification must get no answer. Two bytes of the
// input choose a call (callOf).
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6})
	f.Add([]byte{0x40, 0, 0x41, 1, 0x42, 7, 0xc0, 3, 0x80, 2, 0x07, 4})
	f.Add([]byte{0x47, 0, 0x47, 1, 0x07, 2, 0x47, 5, 0x41, 9, 0x41, 9})
	port := testkit.Silent(f)
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 2*100 {
			return
		}
		var sent bytes.Buffer
		var batch []string
		want := map[string]int{}
		flush := func() {
			if len(batch) > 0 {
				fmt.Fprintf(&sent, "[%s]\n", strings.Join(batch, ","))
			}
			batch = nil
		}
		for ; len(ops) >= 2; ops = ops[2:] {
			id, text, inBatch := callOf(ops[0], ops[1])
			if id != "" {
				want[id]++
			}
			if inBatch {
				batch = append(batch, text)
				continue
			}
			flush()
			sent.WriteString(text + "\n")
		}
		flush()
		got := map[string]int{}
		for id, answers := range converse(t, port, newCounting(), sent.Bytes()) {
			got[id] = len(answers)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("%.2000s\nanswers by id: %v, want %v", sent.Bytes(), got, want)
		}
	})
}

// callOf makes a call. The low bits of the first byte choose the id ("" for a notification). Bit 6
// puts the call into a batch. The second byte chooses the method.
func callOf(how, what byte) (id, text string, inBatch bool) {
	ids := []string{`1`, `-1`, `"1"`, `""`, `null`, `123456789012345678901234567890`, `"\u00e9\"x"`}
	methods := []string{
		`"tls.Backend"`, `"tls.Read","params":[1,5]`, `"tls.Read","params":{"maxBytes":9,"handle":2}`, `"tls.Write","params":[1,"YQ=="]`,
		`"tls.Write","params":[2]`, `"tls.Status","params":[1]`, `"tls.Handshake","params":[1,1]`, `"no such"`, `"tls.LastError"`,
		`"tls.Close","params":[2]`, `"tls.Read","params":[9,1]`, `"tls.Shutdown","params":[1]`, `"tls.Read","params":{"handle":1,"handle":1,"maxBytes":1}`,
	}
	if n := int(how & 7); n < len(ids) {
		id = ids[n]
		text = `"id":` + id + `,`
	}
	return id, `{"jsonrpc":"2.0",` + text + `"method":` + methods[int(what)%len(methods)] + `}`, how&0x40 != 0
}
